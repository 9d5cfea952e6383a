"""Boundary expand: an extra class for F, which is gone when the model comes back."""

import pytest
import torch
from torch import nn

from fedunlearn.errors import UserError
from fedunlearn.models.flat import FlatModel
from fedunlearn.randomness import torch_generator
from fedunlearn.unlearning import Examples, method
from fedunlearn.unlearning.boundary_expand import BoundaryExpand, narrowed, widened
from fedunlearn.unlearning.linear_head import head_of
from tests.oracles import unlearning as oracle
from tests.oracles import unlearning_teachers as teachers
from tests.unlearning import tiny

FORGET = tiny.examples(9, 1, label=2)
EMPTY = FORGET.select(torch.arange(0))


def run(model, settings=None, forget=FORGET):
    return method("boundary-expand")(model, forget, EMPTY, settings=settings, generator=tiny.generator(3))


def test_two_epochs_are_those_of_the_oracle():
    settings = BoundaryExpand(epochs=2, batch_size=4, lr=0.1, weight_decay=0.01)
    model = tiny.flat()
    module = tiny.plain_copy(model)
    drawing = torch_generator(3, "extra-class")
    spread = (2 / (5 + tiny.CLASSES + 1)) ** 0.5
    row = torch.randn(5, generator=drawing, dtype=torch.float64) * spread
    batches = [FORGET.images[r] for batches in oracle.orders(9, 4, 2, seed=3) for r in batches]
    teachers.expand(module, batches, settings, row)
    torch.testing.assert_close(run(model, settings).vector, tiny.weights(module), rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", [False, True])
def test_the_result_has_k_outputs_and_the_given_architecture(norm):
    model = tiny.flat(norm=norm)
    found = run(model, BoundaryExpand(lr=0.1))
    assert found.module(FORGET.images).shape == (9, tiny.CLASSES)
    assert found.module[-1].out_features == tiny.CLASSES
    shapes = [{n: t.shape for n, t in m.module.state_dict().items()} for m in (found, model)]
    assert shapes[0] == shapes[1] and str(found.module) == str(model.module)


def test_buffers_that_training_changed_are_kept():
    model = tiny.flat(norm=True)
    found = run(model, BoundaryExpand(epochs=2, batch_size=3))
    assert int(found.buffers()["2.num_batches_tracked"]) == 6
    assert not torch.equal(found.buffers()["2.running_mean"], model.buffers()["2.running_mean"])


def test_the_global_generator_is_left_alone():
    model, before = tiny.flat(), torch.get_rng_state()
    run(model)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("bias", [False, True])
def test_widening_adds_an_output_and_narrowing_takes_it_away(bias):
    torch.manual_seed(0)
    model = FlatModel(nn.Sequential(nn.Flatten(), nn.Linear(6, 4, bias=bias)), dtype=torch.float64)
    wide = widened(model, "1", tiny.generator())
    logits = wide.module(FORGET.images)
    assert wide.module[1].out_features == 5 and logits.shape == (9, 5)
    assert torch.allclose(logits[:, :4], model.module(FORGET.images), rtol=0, atol=1e-14)
    assert torch.equal(narrowed(wide, model).vector, model.vector)


def test_a_class_that_was_learned_is_forgotten_and_the_others_are_not():
    labels = torch.arange(40) % tiny.CLASSES
    images = tiny.examples(40, 1).images * 0.1 + 2 * tiny.examples(tiny.CLASSES, 7).images[labels]
    model = tiny.flat()
    module = tiny.plain_copy(model)
    learning = BoundaryExpand(lr=0.1, batch_size=40)
    oracle.fine_tune(module, images, labels, learning, [[list(range(40))]] * 100)
    model.load(tiny.weights(module))
    forgotten = labels == 2
    found = run(model, BoundaryExpand(epochs=20, lr=0.05), Examples(images[forgotten], labels[forgotten]))
    right = [m.module(images).argmax(1) == labels for m in (model, found)]
    assert right[0].all()
    assert not right[1][forgotten].any() and right[1][~forgotten].float().mean() > 0.9


def test_labels_do_not_matter():
    model = tiny.flat()
    one, other = (run(model, forget=forget) for forget in (FORGET, FORGET._replace(labels=FORGET.labels - 1)))
    assert torch.equal(one.vector, other.vector)


# -- the last layer -------------------------------------------------------------------------------------------


class Named(nn.Module):
    """Heads that come before the body in the order of modules, and a layer that is not used at all."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(5, 4)
        self.body = nn.Linear(6, 5)
        self.unused = nn.Linear(5, 4)

    def forward(self, images):
        return self.head(self.body(images.flatten(1)).tanh())


class Ends(Named):
    """Does not end in a linear layer."""

    def forward(self, images):
        return super().forward(images).log_softmax(1)


def double(module):
    return FlatModel(module, dtype=torch.float64)


def test_the_layer_is_found_by_what_it_gives_not_by_its_place():
    torch.manual_seed(0)
    assert head_of(double(Named()), FORGET.images, "x") == "head"
    assert head_of(tiny.flat(), FORGET.images, "x") == "3"


def test_a_model_that_is_a_linear_layer_is_its_own_head():
    model = double(nn.Linear(3, 4))
    assert head_of(model, FORGET.images[:1, 0, 0], "x") == ""
    assert widened(model, "", tiny.generator()).module.out_features == 5


@pytest.mark.parametrize("module", [Ends(), nn.Sequential(nn.Conv2d(1, 4, (2, 3)), nn.Flatten())])
def test_models_without_one_are_refused_by_name_in_one_line(module):
    with pytest.raises(UserError) as refusal:
        run(double(module))
    message = str(refusal.value)
    assert message.startswith(f"boundary-expand: {type(module).__name__} does not end in a linear layer")
    assert "\n" not in message


@pytest.mark.parametrize("name", ["mlp", "small-cnn", "resnet18", "vit"])
def test_our_own_models_have_one(name):
    from fedunlearn.models.mlp import MLPSettings, mlp
    from fedunlearn.models.resnet import resnet18
    from fedunlearn.models.small_cnn import small_cnn
    from fedunlearn.models.vit import ViTSettings, vit

    module = {
        "mlp": lambda: mlp(4, 1, 8, MLPSettings(())),
        "small-cnn": lambda: small_cnn(4, 1, 8),
        "resnet18": lambda: resnet18(4, 1, 8),
        "vit": lambda: vit(4, 1, 8, ViTSettings(4, 8, 1, 2)),
    }[name]()
    images = torch.zeros(1, 1, 8, 8)
    head = head_of(FlatModel(module), images, "x")
    assert module.get_submodule(head).out_features == 4
