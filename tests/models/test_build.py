"""Initial weights depend on the training seed alone, and drawing them leaves no trace."""

import math
import threading
from typing import get_args, get_type_hints

import pytest
import torch
from torch import nn

from fedunlearn import registry
from fedunlearn.config import ModelConfig
from fedunlearn.models import MODELS, build
from fedunlearn.models.initialise import initialise

NAMES = sorted(MODELS)


def make(name, seed=1):
    return build(ModelConfig(name=name), num_classes=10, in_channels=1, image_size=8, seed=seed)


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_one_set_of_weights_whatever_was_drawn_before(name):
    first = state(make(name))
    torch.manual_seed(1234)
    torch.rand(10)
    assert equal(first, state(make(name)))
    assert not equal(first, state(make(name, seed=2)))


@pytest.mark.parametrize("name", NAMES)
def test_building_does_not_touch_the_global_generator(name):
    before = torch.get_rng_state()
    make(name)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
def test_models_are_float32_and_finite_whatever_the_default_dtype(name):
    default = torch.get_default_dtype()
    expected = state(make(name))
    try:
        torch.set_default_dtype(torch.float64)
        built = state(make(name))
    finally:
        torch.set_default_dtype(default)
    assert all(tensor.dtype == torch.float32 for tensor in built.values())
    assert all(tensor.isfinite().all() for tensor in built.values())
    assert equal(built, expected)


def test_threads_building_at_once_get_the_same_weights():
    built = []
    threads = [threading.Thread(target=lambda: built.append(state(make("small-cnn")))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 4
    assert all(equal(built[0], other) for other in built)


def test_convolutions_are_he_normal_and_linear_layers_uniform():
    model = make("resnet18")
    weight = model.layer4[0].conv1.weight  # from 256 channels to 512: fan-in is another number
    fan_out = 512 * 3 * 3
    assert weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.01)
    assert abs(weight.mean().item()) < 1e-4
    # Normal, not uniform: a uniform draw has no value beyond √3 standard deviations.
    assert weight.abs().max() > 4 * weight.std()
    bound = 1 / math.sqrt(512)
    for drawn in (model.fc.weight, model.fc.bias):
        assert bound * 0.9 < drawn.abs().max() <= bound
    assert model.fc.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_normalisation_layers_start_as_the_identity():
    model = nn.Sequential(nn.GroupNorm(2, 4), nn.BatchNorm2d(4))
    for tensor in [*model.parameters(), model[1].running_mean, model[1].running_var]:
        tensor.data.fill_(7)
    initialise(model, torch.Generator().manual_seed(0))
    for layer in model:
        assert layer.weight.tolist() == [1, 1, 1, 1]
        assert layer.bias.tolist() == [0, 0, 0, 0]
    assert model[1].running_mean.tolist() == [0, 0, 0, 0]
    assert model[1].running_var.tolist() == [1, 1, 1, 1]


def test_a_biased_convolution_draws_its_bias_within_pytorchs_bound():
    layer = nn.Conv2d(4, 256, 3)
    layer.bias.data.fill_(7)
    initialise(layer, torch.Generator().manual_seed(0))
    assert 0.9 / 6 < layer.bias.abs().max() <= 1 / 6


def test_a_layer_nobody_knows_how_to_fill_is_refused():
    with pytest.raises(TypeError, match=r"does not know how to fill a PReLU"):
        initialise(nn.Sequential(nn.PReLU()), torch.Generator())


def test_the_registry_is_the_names_of_the_configuration():
    assert get_args(get_type_hints(ModelConfig)["name"]) == tuple(MODELS)


def test_every_model_has_a_one_line_description():
    assert all(line.endswith(".") and len(line) < 110 for line in registry.describe(MODELS).values())
