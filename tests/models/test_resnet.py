"""ResNet-18 is exactly the one of PUF's experiments: every layer of it, and its first weights."""

import math

import pytest
import torch
from torch import nn

from tests.models.small import make, parameters

CIFAR = {"in_channels": 3, "image_size": 32}
# Name, kind, shape of the weights, stride.
LAYERS = [
    ("conv1", nn.Conv2d, (64, 3, 3, 3), 1),
    ("bn1", nn.GroupNorm, (64,), None),
    ("layer1.0.conv1", nn.Conv2d, (64, 64, 3, 3), 1),
    ("layer1.0.bn1", nn.GroupNorm, (64,), None),
    ("layer1.0.conv2", nn.Conv2d, (64, 64, 3, 3), 1),
    ("layer1.0.bn2", nn.GroupNorm, (64,), None),
    ("layer1.1.conv1", nn.Conv2d, (64, 64, 3, 3), 1),
    ("layer1.1.bn1", nn.GroupNorm, (64,), None),
    ("layer1.1.conv2", nn.Conv2d, (64, 64, 3, 3), 1),
    ("layer1.1.bn2", nn.GroupNorm, (64,), None),
    ("layer2.0.conv1", nn.Conv2d, (128, 64, 3, 3), 2),
    ("layer2.0.bn1", nn.GroupNorm, (128,), None),
    ("layer2.0.conv2", nn.Conv2d, (128, 128, 3, 3), 1),
    ("layer2.0.bn2", nn.GroupNorm, (128,), None),
    ("layer2.0.downsample.0", nn.Conv2d, (128, 64, 1, 1), 2),
    ("layer2.0.downsample.1", nn.GroupNorm, (128,), None),
    ("layer2.1.conv1", nn.Conv2d, (128, 128, 3, 3), 1),
    ("layer2.1.bn1", nn.GroupNorm, (128,), None),
    ("layer2.1.conv2", nn.Conv2d, (128, 128, 3, 3), 1),
    ("layer2.1.bn2", nn.GroupNorm, (128,), None),
    ("layer3.0.conv1", nn.Conv2d, (256, 128, 3, 3), 2),
    ("layer3.0.bn1", nn.GroupNorm, (256,), None),
    ("layer3.0.conv2", nn.Conv2d, (256, 256, 3, 3), 1),
    ("layer3.0.bn2", nn.GroupNorm, (256,), None),
    ("layer3.0.downsample.0", nn.Conv2d, (256, 128, 1, 1), 2),
    ("layer3.0.downsample.1", nn.GroupNorm, (256,), None),
    ("layer3.1.conv1", nn.Conv2d, (256, 256, 3, 3), 1),
    ("layer3.1.bn1", nn.GroupNorm, (256,), None),
    ("layer3.1.conv2", nn.Conv2d, (256, 256, 3, 3), 1),
    ("layer3.1.bn2", nn.GroupNorm, (256,), None),
    ("layer4.0.conv1", nn.Conv2d, (512, 256, 3, 3), 2),
    ("layer4.0.bn1", nn.GroupNorm, (512,), None),
    ("layer4.0.conv2", nn.Conv2d, (512, 512, 3, 3), 1),
    ("layer4.0.bn2", nn.GroupNorm, (512,), None),
    ("layer4.0.downsample.0", nn.Conv2d, (512, 256, 1, 1), 2),
    ("layer4.0.downsample.1", nn.GroupNorm, (512,), None),
    ("layer4.1.conv1", nn.Conv2d, (512, 512, 3, 3), 1),
    ("layer4.1.bn1", nn.GroupNorm, (512,), None),
    ("layer4.1.conv2", nn.Conv2d, (512, 512, 3, 3), 1),
    ("layer4.1.bn2", nn.GroupNorm, (512,), None),
    ("fc", nn.Linear, (10, 512), None),
]


@pytest.fixture(scope="module")
def model():
    return make("resnet18", num_classes=10, **CIFAR)


def kinds(model, kind):
    return [layer for layer in model.modules() if isinstance(layer, kind)]


def test_every_layer_in_its_place(model):
    found = [
        (name, type(layer), tuple(layer.weight.shape), layer.stride[0] if type(layer) is nn.Conv2d else None)
        for name, layer in model.named_modules()
        if list(layer.parameters(recurse=False))
    ]
    assert found == LAYERS


def test_convolutions_are_square_keep_the_size_and_have_no_bias(model):
    for layer in kinds(model, nn.Conv2d):
        assert layer.stride[0] == layer.stride[1]
        assert layer.padding == ((1, 1) if layer.kernel_size == (3, 3) else (0, 0))
        assert layer.bias is None
        assert (layer.groups, layer.dilation) == (1, (1, 1))


def test_normalisation_is_over_two_groups_and_nothing_else_remembers(model):
    norms = kinds(model, nn.GroupNorm)
    assert {(norm.num_groups, norm.eps, norm.affine) for norm in norms} == {(2, 1e-5, True)}
    assert not kinds(model, nn.BatchNorm2d | nn.MaxPool2d | nn.modules.dropout._DropoutNd)
    assert not list(model.buffers())


@pytest.mark.parametrize(("num_classes", "expected"), [(10, 11_173_962), (100, 11_220_132)])
def test_number_of_parameters(num_classes, expected):
    model = make("resnet18", num_classes=num_classes, **CIFAR)
    assert parameters(model) == expected
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, num_classes)


def test_the_full_resolution_goes_through_stem_and_first_stage():
    model = make("resnet18", **CIFAR)
    shapes = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        stage.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:])))
    model(torch.randn(1, 3, 32, 32))
    assert shapes == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]


def test_a_block_adds_what_came_in_before_its_last_activation(model):
    block = model.layer2[0]
    x = torch.randn(2, 64, 8, 8, generator=torch.Generator().manual_seed(0))
    inner = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
    torch.testing.assert_close(block(x), (inner + block.downsample(x)).relu())


def test_convolutions_start_he_normal_with_fan_out(model):
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            out_channels, _, height, width = layer.weight.shape
            values = layer.weight.double().flatten() * math.sqrt(out_channels * height * width / 2)
            # Four standard errors of mean, variance and fourth moment of so many standard normal numbers.
            error = 4 / math.sqrt(len(values))
            assert abs(values.mean()) < error, name
            assert abs(values.square().mean() - 1) < error * math.sqrt(2), name
            assert abs(values.pow(4).mean() - 3) < error * math.sqrt(96), name


def test_normalisation_starts_as_the_identity_and_the_head_uniform(model):
    for norm in kinds(model, nn.GroupNorm):
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()
    bound = 1 / math.sqrt(512)
    for drawn in (model.fc.weight, model.fc.bias):
        assert bound * 0.8 < drawn.abs().max() <= bound
    assert model.fc.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
