"""What each architecture is made of, and that it maps any allowed image to logits and can be trained."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedunlearn.config import ModelConfig
from fedunlearn.models import MODELS, build


def make(name, num_classes=10, in_channels=1, image_size=28, **config):
    shape = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    return build(ModelConfig(name=name, **config), **shape, seed=1)


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(MODELS)), st.integers(2, 7), st.integers(1, 4), st.integers(4, 17))
def test_logits_for_any_size_channels_and_classes(name, num_classes, in_channels, image_size):
    model = make(name, num_classes, in_channels, image_size)
    images = torch.randn(2, in_channels, image_size, image_size)
    assert model(images).shape == (2, num_classes)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_parameter_gets_a_gradient(name):
    model = make(name, image_size=8)
    model(torch.randn(3, 1, 8, 8)).logsumexp(1).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("name", sorted(MODELS))
def test_an_images_logits_do_not_depend_on_its_batch_in_training_mode(name):
    model = make(name, image_size=8).double()
    images = torch.randn(5, 1, 8, 8, dtype=torch.float64)
    assert model.training
    torch.testing.assert_close(model(images)[:1], model(images[:1]), rtol=0, atol=1e-10)
    assert not list(model.buffers())


@pytest.mark.parametrize(
    ("hidden", "expected"),
    [
        ((64,), 64 * 64 + 64 + 64 * 10 + 10),
        ((), 64 * 10 + 10),
        ((5, 3), 64 * 5 + 5 + 5 * 3 + 3 + 3 * 10 + 10),
    ],
)
def test_mlp_has_the_layers_asked_for(hidden, expected):
    model = make("mlp", image_size=8, hidden=hidden)
    assert parameters(model) == expected
    assert sum(isinstance(layer, nn.ReLU) for layer in model) == len(hidden)


def test_small_cnn_has_20794_parameters_on_mnist():
    assert (
        parameters(make("small-cnn"))
        == 5 * 5 * 16 + 32 + 3 * 3 * 16 * 32 + 64 + 7 * 7 * 32 * 10 + 10
        == 20_794
    )


def test_resnet18_is_the_one_of_the_papers():
    model = make("resnet18", in_channels=3, image_size=32)
    assert parameters(model) == 11_173_962
    layers = list(model.modules())
    assert not any(isinstance(layer, nn.BatchNorm2d | nn.MaxPool2d) for layer in layers)
    norms = [layer for layer in layers if isinstance(layer, nn.GroupNorm)]
    assert len(norms) == 20
    assert all(norm.num_groups == 2 and norm.eps == 1e-5 for norm in norms)
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 20
    assert all(convolution.bias is None for convolution in convolutions)
    assert (model.conv1.kernel_size, model.conv1.stride, model.conv1.padding) == ((3, 3), (1, 1), (1, 1))
    stages = [model.layer1, model.layer2, model.layer3, model.layer4]
    assert [len(stage) for stage in stages] == [2, 2, 2, 2]
    assert [stage[1].conv2.out_channels for stage in stages] == [64, 128, 256, 512]


def test_resnet18_keeps_the_full_resolution_through_stem_and_first_stage():
    model = make("resnet18", in_channels=3, image_size=32)
    shapes = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        stage.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:])))
    model(torch.randn(1, 3, 32, 32))
    assert shapes == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
