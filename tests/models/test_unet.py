"""The U-Net: its channels and resolutions, its normalisation, what it refuses, and why it is not stacked."""

import re

import pytest
import torch
from torch import nn

from fedunlearn.errors import ConfigError
from fedunlearn.training import why_not_stackable
from tests.models.small import make, parameters


def kinds(model, kind):
    return [layer for layer in model.modules() if isinstance(layer, kind)]


def conv(fan_in, fan_out, kernel=3):
    return fan_in * fan_out * kernel**2


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_the_one_of_the_prostate_setting(norm):
    """Two convolutions and a residual per level down, a transposed one and one more up; norm and slope each."""
    model = make("unet", num_classes=2, image_size=32, base_features=32, levels=4, norm=norm)
    widths = [32, 64, 128, 256]
    adn = {width: 2 * width + 1 for width in [2, *widths]}
    expected = 0
    for before, width in zip([3, *widths], widths, strict=False):
        residual = conv(before, width, kernel=1 if width == 256 else 3)  # the lowest level does not halve
        expected += conv(before, width) + conv(width, width) + 2 * adn[width] + residual
    for above, width, below in [(64, 128, 256), (32, 64, 64), (2, 32, 32)]:
        expected += conv(width + below, above) + adn[above] + conv(above, above) + adn[above]
    expected -= adn[2]  # the last convolution gives the logits as they are
    assert parameters(model) == expected


@pytest.mark.parametrize(("levels", "image_size"), [(2, 12), (3, 16), (4, 16), (4, 24), (4, 384)])
def test_resolution_halves_from_level_to_level_and_comes_back(levels, image_size):
    model = make("unet", num_classes=2, base_features=2, levels=levels, image_size=image_size)
    shapes = []
    for layer in kinds(model, nn.Conv2d | nn.ConvTranspose2d):
        layer.register_forward_hook(lambda _layer, _inputs, output: shapes.append(tuple(output.shape[1:])))
    with torch.no_grad():
        assert model(torch.randn(2, 3, image_size, image_size)).shape == (2, 2, image_size, image_size)
    down = [(2 * 2**level, *2 * (image_size // 2 ** min(level + 1, levels - 1),)) for level in range(levels)]
    # A residual and two convolutions per level.
    assert shapes[: 3 * levels] == [shape for shape in down for _ in range(3)]


@pytest.mark.parametrize(("name", "kind"), [("batch", nn.BatchNorm2d), ("instance", nn.InstanceNorm2d)])
def test_normalisation_is_the_one_asked_for_and_learns_scale_and_shift(name, kind):
    model = make("unet", norm=name)
    norms = kinds(model, nn.BatchNorm2d | nn.InstanceNorm2d | nn.GroupNorm | nn.LayerNorm)
    assert norms
    assert {type(norm) for norm in norms} == {kind}
    assert all(norm.affine and norm.eps == 1e-5 for norm in norms)
    tracked = {buffer.rpartition(".")[2] for buffer, _ in model.named_buffers()}
    assert tracked == ({"running_mean", "running_var", "num_batches_tracked"} if name == "batch" else set())


@pytest.mark.parametrize("residual_units", [0, 1, 2, 3])
def test_a_level_has_as_many_convolutions_as_asked_for(residual_units):
    model = make("unet", num_classes=2, levels=3, residual_units=residual_units)
    assert len(kinds(model, nn.ConvTranspose2d)) == 2
    # Down three levels, and up two, each with a residual convolution where the shape changes.
    expected = 3 * residual_units + 3 + 2 if residual_units else 3
    assert len(kinds(model, nn.Conv2d)) == expected
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 2, 16, 16)


def test_nothing_that_a_normalisation_would_take_out_again_is_learnt():
    model = make("unet")
    assert all(layer.bias is None for layer in kinds(model, nn.Conv2d | nn.ConvTranspose2d))
    assert all(layer.p == 0 for layer in kinds(model, nn.modules.dropout._DropoutNd))


@pytest.mark.parametrize(
    ("levels", "image_size", "told"),
    [
        (
            4,
            30,
            "model.levels = 4: needs images whose height and width are a multiple of 8 and at least 16 pixels",
        ),
        (
            4,
            8,
            "model.levels = 4: needs images whose height and width are a multiple of 8 and at least 16 pixels",
        ),
        (
            2,
            3,
            "model.levels = 2: needs images whose height and width are a multiple of 2 and at least 4 pixels",
        ),
    ],
)
def test_images_that_cannot_be_halved_so_often_are_refused_in_one_line(levels, image_size, told):
    with pytest.raises(ConfigError) as error:
        make("unet", levels=levels, image_size=image_size)
    assert str(error.value) == f"{told}, not {image_size}; use fewer levels or another data.resize"


@pytest.mark.parametrize(("levels", "image_size"), [(2, 4), (3, 8), (4, 16)])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_the_smallest_image_allowed_trains_alone(levels, image_size, norm):
    model = make("unet", levels=levels, image_size=image_size, norm=norm)
    model(torch.randn(1, 3, image_size, image_size)).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_shift_of_the_image_shifts_the_mask():
    """Convolutions alone: no pixel knows where it is, but for the border."""
    model = make("unet", num_classes=2, image_size=64, levels=2, norm="instance").double()
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    images[..., :24], images[..., 40:], images[..., :24, :], images[..., 40:, :] = 0, 0, 0, 0
    moved = images.roll((4, -8), (2, 3))
    with torch.no_grad():
        expected = model(images).roll((4, -8), (2, 3))[..., 16:48, 12:44]
        found = model(moved)[..., 16:48, 12:44]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("norm", "reason"),
    [
        ("batch", r"layer '.*' \(BatchNorm2d\) has the buffer 'running_mean'"),
        ("instance", "UNet does not run as a stack: .*classif"),
    ],
)
def test_it_is_not_stacked_and_says_why(norm, reason):
    told = why_not_stackable(make("unet", norm=norm), (3, 16, 16))
    assert re.match(reason, told), told
    assert "\n" not in told
