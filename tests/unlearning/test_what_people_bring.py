"""Models and examples as people have them: every routine does its work on them, or says in one line why not."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from fedunlearn import unlearning
from fedunlearn.errors import UserError
from fedunlearn.models.flat import FlatModel
from fedunlearn.unlearning import Conditions, Examples
from tests.unlearning import modules, tiny
from tests.unlearning.test_contract import quick

METHODS = unlearning.methods()
FORGET = tiny.examples(8, 1, label=2)
RETAIN = tiny.examples(24, 2)
RETAIN = RETAIN.select((RETAIN.labels != 2).nonzero().flatten())
NOTHING = Examples(FORGET.images[:0], FORGET.labels[:0])


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


def run(method, model, forget=FORGET, retain=RETAIN, **given):
    return method(model, forget, retain, **{"settings": quick(method), "generator": tiny.generator()} | given)


def refused(method, *given, **more):
    with pytest.raises(UserError) as error:
        run(method, *given, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


# -- what a module draws --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", modules.DRAWING)
def test_the_same_generator_gives_the_same_bits_and_the_global_one_stays_where_it_is(method, kind):
    model, found = modules.flat(modules.DRAWING[kind]), []
    assert model.draws
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(run(method, model))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found[0].vector, found[1].vector)
    other = run(method, model, generator=tiny.generator(4))
    without = method.name in ("ssd", "mpru")  # they take no step and draw nothing
    assert torch.equal(other.vector, found[0].vector) == without


def test_dropout_is_dropped_out(method):
    """It is not merely switched off: the same model without it ends elsewhere."""
    drawing = modules.flat(modules.DRAWING["dropout"])
    plain = FlatModel(modules.around(nn.Dropout(0.0)).double(), dtype=torch.float64)
    plain.load(drawing.vector)
    steps = "lr" in method.defaults
    assert torch.equal(run(method, drawing).vector, run(method, plain).vector) != steps


def test_what_nobody_could_know_to_draw_is_refused_and_the_global_generator_put_back(method):
    model = modules.flat(modules.Functional)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    if "lr" in method.defaults:
        assert "give that module the attribute draws_at_random = True" in refused(method, model)
    else:
        run(method, model)
    assert torch.equal(torch.get_rng_state(), before)


# -- models ---------------------------------------------------------------------------------------------------


def test_frozen_parameters_are_refused_when_the_model_is_made_or_copied(method):
    module = modules.around()
    module[1].bias.requires_grad_(False)
    with pytest.raises(UserError, match=r"1 of its 4 parameters require no gradient, such as '1\.bias'"):
        FlatModel(module)
    model = tiny.flat()
    model.parameters[0].requires_grad_(False)
    vector = model.vector.clone()
    assert "require no gradient" in refused(method, model)
    assert "require no gradient" in refused(method, model, NOTHING)
    assert torch.equal(model.vector, vector)


@pytest.mark.parametrize("training", [True, False])
def test_a_model_comes_back_in_the_mode_it_was_given_in_layer_by_layer(method, training):
    model = tiny.flat(norm=True)
    model.module.train(training)
    model.module[2].train(not training)
    given = {name: layer.training for name, layer in model.module.named_modules()}
    for forget in (FORGET, NOTHING):
        found = run(method, model, forget).module
        own = found.model if method.returns == "filter" and forget.size else found
        assert {name: layer.training for name, layer in own.named_modules()} == given
        assert found.training is training
        assert {name: layer.training for name, layer in model.module.named_modules()} == given


def test_batch_norm_without_running_statistics_is_no_matter_or_refused_by_name(method):
    model = modules.flat(lambda: modules.around(nn.BatchNorm1d(5, track_running_stats=False)))
    if method.needs(quick(method)).statistics:
        assert refused(method, model).startswith(
            f"{method.name}: needs outputs in evaluation mode, and '2' (BatchNorm1d)"
        )
    else:
        assert not torch.equal(run(method, model).vector, model.vector)


def test_who_says_so_asks_for_outputs_in_evaluation_mode_and_nobody_else(method, monkeypatch):
    """What is read off one image alone, such as the number of classes, needs no statistics."""
    seen = []
    forward = nn.BatchNorm1d.forward

    def watched(layer, values):
        alike = len(values) < 3 and bool((values == values[0]).all())
        seen.append((layer.training, alike))
        return forward(layer, values)

    monkeypatch.setattr(nn.BatchNorm1d, "forward", watched)
    run(method, tiny.flat(norm=True))
    in_evaluation = any(not training and not alike for training, alike in seen)
    if method.name != "trw" and method.name != "mpru":  # trw has targets of F, mpru's default reads nothing
        assert in_evaluation == method.needs(quick(method)).statistics
    if "lr" in method.defaults:
        assert any(training for training, _ in seen)


@pytest.mark.parametrize("kind", modules.HEADS)
def test_a_last_layer_that_is_none_or_more_than_one(method, kind):
    model, needed = modules.flat(modules.HEADS[kind]), method.needs(quick(method)).last_layer
    if kind == "ending" and needed != "any":
        assert (
            refused(method, model)
            == f"{method.name}: Ending does not end in a linear layer; use another routine"
        )
    elif needed == "own":
        message = refused(method, model)
        assert message.startswith(f"{method.name}: the last layer of ") and "use another routine" in message
    elif (kind, method.name) == (
        "computed",
        "bad-teacher",
    ):  # it draws the weights of a network of the same kind
        assert "bad-teacher: initialise() does not know how to fill" in refused(method, model)
    else:
        run(method, model)


def test_a_model_that_is_not_finite_or_no_model_of_these_images_is_refused(method):
    model = tiny.flat()
    model.vector[7] = torch.nan
    assert refused(method, model).startswith(f"{method.name}: the model has weights that are not finite")
    larger = Examples(torch.cat([FORGET.images] * 2, dim=2), FORGET.labels)
    assert refused(method, tiny.flat(), larger, NOTHING).startswith(
        f"{method.name}: the model cannot be run on images of shape (1, 4, 3): "
    )
    single = Examples(FORGET.images.float(), FORGET.labels)
    assert f"{method.name}: the images are torch.float32 on cpu" in refused(method, tiny.flat(), single)


# -- examples -------------------------------------------------------------------------------------------------


def spoilt(examples, value):
    images = examples.images.clone()
    images[3, 0, 1, 2] = value
    return Examples(images, examples.labels)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_an_image_that_is_not_finite_is_named(method, value):
    message = "image 3 of the {} {} is not finite (NaN or Inf); fix it or leave it out"
    model = tiny.flat()
    vector = model.vector.clone()
    assert refused(method, model, spoilt(FORGET, value)) == f"{method.name}: {message.format(8, 'to forget')}"
    count = RETAIN.size
    assert refused(method, model, FORGET, spoilt(RETAIN, value)) == (
        f"{method.name}: {message.format(count, 'to retain')}"
    )
    held_out = Conditions(held_out=spoilt(tiny.examples(9, 3), value))
    assert refused(method, model, conditions=held_out) == f"{method.name}: {message.format(9, 'held out')}"
    assert torch.equal(model.vector, vector)


def test_images_whose_sum_overflows_are_finite(method):
    forget = Examples(FORGET.images.sign() * 1e308, FORGET.labels)
    try:
        run(method, tiny.flat(), forget)
    except UserError as error:
        assert "gradients of these examples overflow" in str(error)


@pytest.mark.parametrize("label", [-1, 4, 2**40])
def test_a_label_that_is_no_class_is_named(method, label):
    labels = FORGET.labels.clone()
    labels[5] = label
    assert refused(method, tiny.flat(), Examples(FORGET.images, labels)) == (
        f"{method.name}: label 5 of the 8 to forget is {label}, but the model has 4 classes, counted from 0"
    )
    kept = RETAIN.labels.clone()
    kept[1] = label
    message = refused(method, tiny.flat(), FORGET, Examples(RETAIN.images, kept))
    assert message.startswith(f"{method.name}: label 1 of the {RETAIN.size} to retain is {label}")


def test_labels_of_another_kind_are_refused(method):
    for labels in (FORGET.labels.double(), FORGET.labels.int(), FORGET.labels[:, None], FORGET.labels == 2):
        message = refused(method, tiny.flat(), Examples(FORGET.images, labels))
        assert (
            message.startswith(f"{method.name}: labels to forget are ")
            and "must be int64 of shape (n,)" in message
        )


def test_as_many_labels_as_images(method):
    fewer = Examples(RETAIN.images, RETAIN.labels[:-3])
    count = RETAIN.size
    assert refused(method, tiny.flat(), FORGET, fewer) == (
        f"{method.name}: there are {count} images to retain and {count - 3} labels; give each image its own"
    )
    assert "8 images to forget and 0 labels" in refused(
        method, tiny.flat(), Examples(FORGET.images, NOTHING.labels)
    )
    assert "0 images to forget and 8 labels" in refused(
        method, tiny.flat(), Examples(NOTHING.images, FORGET.labels)
    )


def test_images_of_two_forms_are_refused(method):
    other = Examples(RETAIN.images.flatten(2), RETAIN.labels)
    assert "must be like those to forget" in refused(method, tiny.flat(), FORGET, other)


# -- what is of another kind altogether ------------------------------------------------------------------------


def test_a_module_that_is_not_wrapped_is_refused(method):
    for forget in (FORGET, NOTHING):
        assert refused(method, tiny.network(), forget) == (
            f"{method.name}: the model is a Sequential, but must be a fedunlearn.models.flat.FlatModel; wrap it: "
            "FlatModel(module)"
        )
    assert "the model is a OrderedDict, but must be a fedunlearn.models.flat.FlatModel" in refused(
        method, tiny.network().state_dict()
    )


def test_what_is_no_module_is_not_wrapped():
    for model in (tiny.flat(), tiny.network().state_dict(), None):
        with pytest.raises(UserError, match=r"^the model is a \w+, and must be a torch\.nn\.Module$"):
            FlatModel(model)


@pytest.mark.parametrize("generator", [7, None, "cpu"])
def test_a_generator_is_one(method, generator):
    assert refused(method, tiny.flat(), generator=generator) == (
        f"{method.name}: generator = {generator!r}: must be a torch.Generator, such as "
        "torch.Generator().manual_seed(1)"
    )


def in_each_place(method, examples):
    """Return the lines by which examples are refused: to forget, to retain, held out."""
    model = tiny.flat()
    return {
        "to forget": refused(method, model, examples),
        "to retain": refused(method, model, FORGET, examples),
        "held out": refused(method, model, conditions=Conditions(held_out=examples)),
    }


@pytest.mark.parametrize("other", [tuple(FORGET), list(FORGET), FORGET.images, 7])
def test_examples_are_called_so(method, other):
    for what, message in in_each_place(method, other).items():
        assert message == (
            f"{method.name}: what is {what} is a {type(other).__name__}; pass it as "
            "fedunlearn.unlearning.Examples(images, labels)"
        )


def test_no_retained_examples_are_not_none(method):
    assert "what is to retain is a NoneType" in refused(method, tiny.flat(), FORGET, None)


@pytest.mark.parametrize("name", Examples._fields)
@pytest.mark.parametrize("kind", ["ndarray", "list"])
def test_arrays_and_lists_are_refused_as_such(method, name, kind):
    values = getattr(FORGET, name).numpy()
    other = FORGET._replace(**{name: values if kind == "ndarray" else values.tolist()})
    for what, message in in_each_place(method, other).items():
        assert message.startswith(f"{method.name}: {name} {what} are a {kind}, but must be a torch.Tensor;")


@pytest.mark.parametrize("name", Examples._fields)
def test_one_example_has_an_axis_of_examples_too(method, name):
    single = FORGET._replace(**{name: torch.tensor(1)})
    for what, message in in_each_place(method, single).items():
        assert message.startswith(f"{method.name}: {name} {what} are a single number, without an axis of")


def test_conditions_are_some(method):
    for conditions in ({"clip_norm": 1.0}, None):
        message = refused(method, tiny.flat(), conditions=conditions)
        assert message.startswith(f"{method.name}: conditions are a ")


@pytest.mark.parametrize("name", [None, 7, ["salun"]])
def test_a_method_is_found_by_a_name(name):
    with pytest.raises(UserError, match=r"^routine = .*: must be a name, such as 'fine-tune'$"):
        unlearning.method(name)


# -- what comes out --------------------------------------------------------------------------------------------


STEPS = [name for name, method in METHODS.items() if "lr" in method.defaults]


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.filterwarnings("ignore")
def test_weights_that_are_no_numbers_are_not_returned(name):
    """Steps nearly as long as can be asked for."""
    method, model = METHODS[name], FlatModel(modules.around(nn.BatchNorm1d(5)))
    forget, retain = (Examples(part.images.float(), part.labels) for part in (FORGET, RETAIN))
    settings = replace(quick(method), lr=1e37, epochs=3)
    assert refused(method, model, forget, retain, settings=settings) == (
        f"{name}: diverged; try a smaller lr or clip_norm first: the resulting model holds NaN or Inf"
    )


def spoiling(method, where):
    """Return a method whose function leaves one number that is none in what it returns."""

    def unlearn(model, forget, retain, *, settings, generator, conditions):
        found = model.copy()
        where(found).view(-1)[0] = torch.inf
        return found

    return replace(method, unlearn=unlearn)


@pytest.mark.parametrize(
    "where", [lambda m: m.vector, lambda m: dict(m.module.named_buffers())["2.running_var"]]
)
def test_one_number_that_is_none_is_enough_in_weights_and_in_statistics(method, where):
    message = refused(spoiling(method, where), tiny.flat(norm=True))
    remedy = "try a smaller lr or clip_norm first" if method.name in STEPS else "try other settings"
    assert message == f"{method.name}: diverged; {remedy}: the resulting model holds NaN or Inf"


# -- conditions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        *(
            ({"clip_norm": norm}, "^clip_norm = .*: must be > 0 and finite, or None$")
            for norm in (0, -1.0, float("nan"), "1", torch.ones(2))
        ),
        *(
            ({"pixel_std": std}, "^pixel_std = .*: must be numbers > 0")
            for std in ((), (0.0,), (1.0, float("inf")), 0.5, ("a",), torch.ones(3))
        ),
    ],
)
def test_conditions_that_turn_a_step_round_or_blow_it_up_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        Conditions(**given)


def test_pixels_are_measured_channel_by_channel_or_all_alike():
    stds = Conditions(pixel_std=(0.5, 0.25, 0.25))
    assert refused(METHODS["boundary-shrink"], tiny.flat(), conditions=stds) == (
        "boundary-shrink: pixel_std has 3 numbers, and images have 1 channels; give one for each, or one for all"
    )


# -- what decides by gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "what"), [("ssd", "importances"), ("fisher-noise", "entries"), ("salun", "gradients")]
)
def test_gradients_that_overflow_decide_nothing(name, what):
    """Comparisons with NaN are false: the original would come back without a word."""
    model = tiny.flat()
    images = torch.full_like(FORGET.images, 1e308)
    kept = Examples(torch.full_like(RETAIN.images, 1e308), RETAIN.labels)
    model.module[1].bias.data.zero_()
    model.module[1].weight.data.mul_(1e-308)  # no layer is saturated
    message = refused(METHODS[name], model, Examples(images, FORGET.labels), kept)
    assert message.startswith(f"{name}: ")
    assert f"{what}" in message and "not all finite" in message


def test_masks_are_held_to_the_classes_of_the_model():
    module = nn.Sequential(nn.Conv2d(1, 2, 1))
    model, images = FlatModel(module), torch.rand(4, 1, 3, 3)
    masks = torch.zeros(4, 3, 3, dtype=torch.uint8)
    method = METHODS["fine-tune"]
    given = {"generator": tiny.generator(), "settings": replace(quick(method), lr=0.01)}
    loss = Conditions(loss=lambda outputs, masks: nn.functional.cross_entropy(outputs, masks.long()))
    method(model, Examples(images, masks), Examples(images, masks), conditions=loss, **given)
    masks = masks.clone()
    masks[2, 1, 1] = 7
    with pytest.raises(
        UserError, match=r"^fine-tune: label 2 of the 4 to forget is 7, but the model has 2 classes"
    ):
        method(model, Examples(images, masks), Examples(images, masks), conditions=loss, **given)
