"""What every method keeps to, whoever wrote it."""

import sys
from dataclasses import replace
from functools import partial
from importlib.metadata import EntryPoint

import pytest
import torch

from fedunlearn import plugins, unlearning
from fedunlearn.cli.listing import catalogue
from fedunlearn.errors import ConfigError, UserError
from fedunlearn.federation.hosted_routine import check_routines
from fedunlearn.unlearning import Conditions, Examples
from fedunlearn.unlearning.contract import PLAIN
from fedunlearn.unlearning.steps import clip
from tests.e2e.tiny import TINY
from tests.e2e.tiny import tiny as tiny_experiment
from tests.unlearning import tiny

METHODS = unlearning.methods()
ROUTINE = '[[method]]\nname = "local-routine"\nroutine = "gradient-ascent"\n'
EMPTY = Examples(torch.empty(0, 1, 2, 3, dtype=torch.float64), torch.empty(0, dtype=torch.int64))


def quick(method):
    """Return settings with which a method is done at once, and does something."""
    names = method.defaults
    chosen = {"epochs": 1, "batch_size": 4, "lr": 0.1, "saliency": 0.5, "selection": 1.0, "retain_share": 0.5}
    chosen["sparsity"] = 0.5
    return method.settings(**{name: value for name, value in chosen.items() if name in names})


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


def state(model):
    return (
        model.vector.clone(),
        {n: b.clone() for n, b in model.module.named_buffers()},
        model.module.training,
    )


def run(method, model, brighter=0.0, **given):
    forget, retain = tiny.examples(7, 1, label=2), tiny.examples(9, 2)  # no batch of one, for BatchNorm
    retain = retain.select((retain.labels != 2).nonzero().flatten())  # a class, as a whole
    forget, retain = (Examples(part.images + brighter, part.labels) for part in (forget, retain))
    return method(model, forget, retain, **{"settings": quick(method), "generator": tiny.generator()} | given)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_the_given_model_stays_as_it_is(method, norm, training):
    model = tiny.flat(norm=norm)
    model.module.train(training)
    vector, buffers, mode = state(model)
    found = run(method, model)
    after = state(model)
    assert torch.equal(vector, after[0]) and mode is after[2]
    assert all(torch.equal(buffers[name], after[1][name]) for name in buffers)
    assert found is not model


def test_it_does_something(method):
    model = tiny.flat()
    found = run(method, model)
    images = tiny.examples(6, 1, label=2).images
    before = model.module(images)
    after = found.module(images)
    assert not torch.equal(before, after)


def test_the_same_generator_gives_the_same_bits_and_the_global_one_does_not_matter(method):
    images = tiny.examples(6, 1).images
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(run(method, tiny.flat()).module.eval()(images))
    assert torch.equal(*found)


def test_nothing_to_forget_changes_nothing(method):
    model = tiny.flat(norm=True)
    found = method(model, EMPTY, tiny.examples(9, 2), generator=tiny.generator())
    assert torch.equal(found.vector, model.vector) and found is not model
    assert all(
        torch.equal(a, b) for a, b in zip(found.buffers().values(), model.buffers().values(), strict=True)
    )


def test_without_retained_examples_it_works_or_refuses_by_name(method):
    call = lambda: method(  # noqa: E731
        tiny.flat(), tiny.examples(6, 1, label=2), EMPTY, settings=quick(method), generator=tiny.generator()
    )
    if method.needs(quick(method)).retained:
        with pytest.raises(UserError, match=method.name):
            call()
    else:
        assert call() is not None


def test_what_forgets_classes_refuses_retained_examples_of_them(method):
    call = partial(method, tiny.flat(), tiny.examples(6, 1, label=2), settings=quick(method))
    shared = tiny.examples(4, 2, label=2)
    if method.forgets == ("class",):
        with pytest.raises(
            UserError, match=f"^{method.name}: forgets classes, but some retained examples are of"
        ):
            call(shared, generator=tiny.generator())
    else:
        call(shared, generator=tiny.generator())


def test_progress_counts_to_the_end(method):
    told = []
    run(method, tiny.flat(), conditions=Conditions(progress=told.append))
    assert bool(told) == ("lr" in method.defaults), "whoever takes steps tells of them"
    assert [report.step for report in told] == list(range(1, len(told) + 1))
    assert {report.steps for report in told} <= {len(told)}


def test_gradients_are_clipped(method):
    """Steps so short that weights, whatever the loss, hardly move; decay, momentum and pruning apart."""
    names = method.defaults
    if "lr" not in names:
        pytest.skip("takes no gradient steps")
    without = {name: 0.0 for name in ("weight_decay", "momentum", "sparsity") if name in names}
    settings = method.settings(**{"epochs": 1, "batch_size": 4, "lr": 0.1} | without)
    model, told = tiny.flat(), []
    found = run(method, model, settings=settings, conditions=Conditions(clip_norm=1e-6, progress=told.append))
    if method.name not in ADAM:
        assert float((found.vector - model.vector).norm()) <= 0.1 * 1e-6 * len(told) * 1.01


class Brighter:
    """An augmentation that adds one to every pixel, and draws numbers for nothing."""

    def draw(self, n, generator):
        return torch.rand(n, 1, generator=generator)

    def apply(self, images, targets, parameters):
        assert len(parameters) == len(images)
        return images + 1, targets


def test_every_batch_that_is_trained_on_is_augmented_and_no_order_is_another(method):
    """Trained on images that an augmentation makes brighter, it ends where brighter images end; or nowhere else."""
    everywhere = {"saliency": 1.0} if "saliency" in method.defaults else {}  # masks are of images as they are
    given = {"settings": replace(quick(method), **everywhere)}
    found = run(method, tiny.flat(), conditions=Conditions(augmentation=Brighter()), **given)
    plain = run(method, tiny.flat(), **given)
    if "lr" not in method.defaults:
        assert torch.equal(found.vector, plain.vector), "what takes no step trains on nothing"
        return
    expected = run(method, tiny.flat(), brighter=1.0, **given)
    torch.testing.assert_close(found.vector, expected.vector, rtol=0, atol=1e-14)
    assert not torch.equal(found.vector, plain.vector)


def test_who_takes_steps_trains_in_training_mode_and_who_takes_none_leaves_statistics(method):
    model = tiny.flat(norm=True)
    model.module.eval()
    found = dict(run(method, model).module.named_buffers())
    counted = next(value for name, value in found.items() if name.endswith("num_batches_tracked"))
    assert (int(counted) > 0) == ("lr" in method.defaults)


ADAM = ("bad-teacher", "fedquit", "fedunran")
"""Methods whose steps are as long whatever the length of the gradient."""


def test_clipping_is_torchs():
    parameter = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
    for scale in (0.1, 10.0):
        gradient = scale * torch.arange(5, dtype=torch.float64)
        parameter.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_([parameter], 2.0)
        clip(gradient, 2.0)
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-12, atol=0)


def test_a_method_says_what_it_costs_and_where_it_is_from(method):
    passes = method.passes(method.settings())
    assert passes.forget >= 0 and passes.retain >= 0
    assert method.source and method.defaults.keys()


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match='must be one of "fine-tune", '):
        unlearning.method("amnesia")


def test_settings_of_another_method_are_a_mistake():
    one, other = METHODS["fine-tune"], METHODS["salun"]
    with pytest.raises(TypeError, match="takes FineTune, not SalUn"):
        run(one, tiny.flat(), settings=other.settings())


def test_what_a_method_leaves_reaches_who_asked_and_nobody_else():
    """The conditions that all share by default keep nothing of it."""

    def leaving(model, forget, retain, *, settings, generator, conditions):
        conditions.results["size"] = torch.tensor([float(forget.size)])
        return model.copy()

    method = replace(METHODS["fine-tune"], unlearn=leaving)
    run(method, tiny.flat())
    assert PLAIN.results == {} and Conditions().results == {}
    mine = Conditions()
    run(method, tiny.flat(), conditions=mine)
    assert list(mine.results) == ["size"]


# -- other packages -------------------------------------------------------------------------------------------


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Let another package, theirs, have an entry point: its source, and the name of the entry point."""
    monkeypatch.setattr(plugins, "LOADED", {**plugins.LOADED})

    def install(source, name="theirs"):
        (tmp_path / "theirs.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        point = EntryPoint(name, "theirs:METHOD", "fedunlearn.routines")
        monkeypatch.setattr(plugins, "_points", lambda kind: {name: (point,)} if kind == "routines" else {})

    yield install
    sys.modules.pop("theirs", None)


SOUND = """
from dataclasses import replace
from fedunlearn.unlearning.fine_tune import METHOD as OURS
METHOD = replace(OURS, name="theirs")
"""
UNABLE = 'raise ImportError("no module\\nnamed torchvision2")'


def test_methods_of_other_packages_are_found(installed):
    installed(SOUND)
    assert unlearning.method("theirs").name == "theirs"
    assert list(unlearning.methods()) == [*METHODS, "theirs"]
    assert unlearning.method("theirs:METHOD") is unlearning.method("theirs")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("METHOD = print", "theirs:METHOD is no fedunlearn.unlearning.contract.Method"),
        ("", "theirs:METHOD cannot be loaded: AttributeError: module 'theirs' has no attribute 'METHOD'"),
        (UNABLE, "theirs:METHOD cannot be loaded: ImportError: no module named torchvision2"),
        (
            "METHOD =",
            "theirs:METHOD cannot be loaded: SyntaxError: invalid syntax (theirs.py, line 1)",
        ),
    ],
    ids=["no method", "nothing there", "import error", "syntax error"],
)
def test_what_is_broken_is_in_nobodys_way_who_does_not_name_it(installed, source, why):
    installed(source)
    assert unlearning.methods() == METHODS
    assert unlearning.method("salun") is METHODS["salun"]
    with pytest.raises(ConfigError) as refused:
        unlearning.method("theirs")
    assert str(refused.value) == f"routine = 'theirs': is broken: {why}"
    assert dict(catalogue("routines"))["theirs"] == f"broken: {why}"


def test_a_name_that_is_taken_stays_with_whoever_has_it(installed):
    installed(SOUND, name="salun")
    assert unlearning.method("salun") is METHODS["salun"]
    assert plugins.broken("routines") == {"salun": "theirs:METHOD: there is already a 'salun'"}


def test_an_experiment_that_names_a_broken_routine_is_refused_and_another_runs(installed):
    installed(UNABLE)
    check_routines(tiny_experiment(text=TINY + ROUTINE))
    with pytest.raises(
        ConfigError,
        match=r"^method\[3\]\.routine = \"theirs\" \(.*\): is broken: .*torchvision2$",
    ):
        tiny_experiment(text=TINY + ROUTINE.replace("gradient-ascent", "theirs"))


def test_what_is_returned_must_be_a_flat_model():
    wrong = replace(METHODS["fine-tune"], name="theirs", unlearn=lambda model, *_, **__: model.module)
    with pytest.raises(TypeError, match=r"^theirs: returned a \w+, but must return a .*FlatModel"):
        run(wrong, tiny.flat())
