"""What every architecture does: maps images to logits, can be trained, and draws nothing while it is."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedunlearn.config import TrainConfig
from fedunlearn.models.flat import FlatModel
from fedunlearn.training import Recipe, train_local
from tests.models.small import CLASSES, SIZE, VARIANTS, batch, make, parameters
from tests.profiles import some

STATISTICS = ("unet", "unet, no residual units")
"""Variants that look at a whole batch, and hold statistics of what they saw."""
every_variant = pytest.mark.parametrize("variant", VARIANTS)


@pytest.mark.slow
@some
@given(
    st.sampled_from(["mlp", "resnet18", "small-cnn"]),
    st.integers(2, 7),
    st.integers(1, 4),
    st.integers(4, 17),
)
def test_logits_for_any_size_channels_and_classes(name, num_classes, in_channels, image_size):
    model = make(name, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
    images = torch.randn(2, in_channels, image_size, image_size)
    assert model(images).shape == (2, num_classes)


@pytest.mark.parametrize("in_channels", [1, 2, 4])
@every_variant
def test_as_many_channels_as_the_data_have(variant, in_channels):
    model = make(variant, in_channels=in_channels)
    logits = model(torch.randn(2, in_channels, SIZE, SIZE))
    assert logits.shape[:2] == (2, CLASSES)
    assert logits.isfinite().all()


@every_variant
def test_every_parameter_gets_a_gradient(variant):
    model = make(variant)
    model(batch(variant)[0]).logsumexp(1).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@every_variant
def test_an_images_logits_do_not_depend_on_its_batch_in_training_mode(variant):
    model = make(variant).double()
    images, _ = batch(variant, dtype=torch.float64)
    assert model.training
    among, alone = model(images)[:1], model(images[:1])
    if variant in STATISTICS:
        assert not torch.allclose(among, alone, atol=1e-2)
        assert list(model.buffers())
    else:
        torch.testing.assert_close(among, alone, rtol=0, atol=1e-10)
        assert not list(model.buffers())


@every_variant
def test_training_neither_reads_nor_moves_the_global_generator(variant):
    outcomes = []
    images, targets = batch(variant)
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        model = make(variant)
        logits = model(images)
        F.cross_entropy(logits, targets).backward()
        assert torch.equal(before, torch.get_rng_state())
        outcomes.append([logits.detach(), *(p.grad for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


@every_variant
def test_a_step_of_local_training_lowers_the_loss(variant):
    model = FlatModel(make(variant))
    images, targets = batch(variant)
    settings = TrainConfig(rounds=1, batch_size=len(images), lr=1e-3)
    losses = [
        train_local(
            model,
            images,
            targets,
            settings,
            lr=1e-3,
            generator=torch.Generator().manual_seed(0),
            recipe=Recipe(F.cross_entropy),
        ).loss
        for _ in range(2)
    ]
    assert losses[1] < losses[0]


@every_variant
def test_a_flat_vector_and_the_buffers_are_the_whole_model(variant):
    images, targets = batch(variant)
    one, other = FlatModel(make(variant, seed=1)), FlatModel(make(variant, seed=2))
    assert one.num_parameters == parameters(one.module)
    F.cross_entropy(one.module(images), targets).backward()
    torch.optim.SGD([one.parameter], lr=0.1).step()
    other.load(one.vector, one.buffers())
    for module in (one.module, other.module):
        module.eval()
    with torch.no_grad():
        assert torch.equal(one.module(images), other.module(images))
    assert all(torch.equal(a, b) for a, b in zip(one.module.buffers(), other.module.buffers(), strict=True))


@pytest.mark.parametrize(
    ("hidden", "expected"),
    [
        ((64,), 64 * 64 + 64 + 64 * 10 + 10),
        ((), 64 * 10 + 10),
        ((5, 3), 64 * 5 + 5 + 5 * 3 + 3 + 3 * 10 + 10),
    ],
)
def test_mlp_has_the_layers_asked_for(hidden, expected):
    model = make("mlp", num_classes=10, in_channels=1, image_size=8, hidden=hidden)
    assert parameters(model) == expected
    assert sum(isinstance(layer, nn.ReLU) for layer in model) == len(hidden)


def test_small_cnn_has_20794_parameters_on_mnist():
    assert (
        parameters(make("small-cnn", num_classes=10, in_channels=1, image_size=28))
        == 5 * 5 * 16 + 32 + 3 * 3 * 16 * 32 + 64 + 7 * 7 * 32 * 10 + 10
        == 20_794
    )
