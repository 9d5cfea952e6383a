"""Movements of batches: torch's and torchvision's own, one image at a time, and nothing between the images."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from fedunlearn.data.augmentation.geometry import crop, moved, quarter_turns, rotated


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n=4, channels=3, height=8, width=8, dtype=torch.float32, seed=0):
    return torch.randn(n, channels, height, width, generator=draw(seed), dtype=torch.float64).to(dtype)


def several(values):
    return torch.tensor(values, dtype=torch.int64)


# -- pixels that change places ----------------------------------------------------------------------------------


@given(
    turns=st.integers(0, 3),
    mirrored=st.booleans(),
    upside_down=st.booleans(),
    side=st.integers(1, 7),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.uint8]),
)
def test_right_angles_and_mirrors_are_those_of_torch(turns, mirrored, upside_down, side, dtype):
    image = torch.randint(0, 200, (1, 2, side, side), generator=draw()).to(dtype)
    move = quarter_turns(several([turns]), side).mirrored(several([mirrored]), side)
    found = moved(image, move.upside_down(several([upside_down]), side), side, side)
    expected = torch.rot90(image, turns, (2, 3))
    expected = expected.flip(3) if mirrored else expected
    expected = expected.flip(2) if upside_down else expected
    assert torch.equal(found, expected) and found.dtype == dtype


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    cut=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 99),
)
def test_crops_are_slices_each_its_own_and_mirrored_or_not(height, width, cut, seed):
    h, w = min(cut[0], height), min(cut[1], width)
    images = pictures(5, 2, height, width)
    top = torch.randint(height - h + 1, (5,), generator=draw(seed))
    left = torch.randint(width - w + 1, (5,), generator=draw(seed + 1))
    which = torch.randint(2, (5,), generator=draw(seed + 2))
    found = moved(images, crop(top, left, width).mirrored(which, w), h, w)
    for k in range(5):
        expected = vision.crop(images[k], int(top[k]), int(left[k]), h, w)
        assert torch.equal(found[k], vision.horizontal_flip(expected) if which[k] else expected)


def test_four_quarter_turns_and_two_mirrors_change_nothing():
    images = pictures()
    found = images
    for _ in range(4):
        found = moved(found, quarter_turns(several([1] * 4), 8), 8, 8)
    assert torch.equal(found, images)
    for _ in range(2):
        mirror = quarter_turns(several([0] * 4), 8).mirrored(several([1] * 4), 8)
        assert torch.equal(found, images)
        found = moved(found, mirror, 8, 8)
        assert not torch.equal(found, images)
        found = moved(found, mirror, 8, 8)


def test_images_of_any_layout_in_memory():
    images = pictures()
    move = quarter_turns(several([0, 1, 2, 3]), 8)
    expected = moved(images, move, 8, 8)
    assert torch.equal(moved(images.contiguous(memory_format=torch.channels_last), move, 8, 8), expected)
    assert torch.equal(moved(images.mT.contiguous().mT, move, 8, 8), expected)


# -- rotation ---------------------------------------------------------------------------------------------------

ANGLES = [-0.377, -0.2, -1e-3, 0.0, 0.01, 0.3, math.pi / 2, 3.0]


@pytest.mark.parametrize("edges", ["reflection", "zeros"])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (28, 28), (7, 9)])
def test_rotation_is_torchvision_s_one_by_one(height, width, interpolation, edges):
    """Torchvision knows no reflection: the mirrored image is laid around the image first, and cut off after.

    In double precision. 1e-10 is for coordinates, which torchvision rounds otherwise; a pixel whose source lies
    half way between two may therefore have the other one as its nearest.
    """
    images = pictures(len(ANGLES), 2, height, width, torch.float64)
    found = rotated(images, torch.tensor(ANGLES), interpolation=interpolation, edges=edges)
    margin = max(height, width) // 4 + 2
    mode = {"reflection": "symmetric", "zeros": "constant"}[edges]
    for image, angle, mine in zip(images, torch.tensor(ANGLES).tolist(), found, strict=True):
        canvas = vision.pad(image, [margin] * 4, padding_mode=mode)
        expected = vision.rotate(canvas, math.degrees(angle), InterpolationMode(interpolation))
        off = (mine - vision.crop(expected, margin, margin, height, width)).abs() > 1e-10
        assert off.double().mean() <= (0.01 if interpolation == "nearest" else 0)


def test_a_right_angle_is_torch_s_turn():
    images = pictures(1, dtype=torch.float64)
    found = rotated(images, torch.tensor([math.pi / 2], dtype=torch.float64))
    assert torch.allclose(found, torch.rot90(images, 1, (2, 3)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("side", [8, 32, 64])
def test_no_angle_changes_no_bit_where_coordinates_are_exact(side, dtype):
    images = pictures(3, 1, side, side, dtype)
    assert torch.equal(rotated(images, torch.zeros(3)), images)


def test_no_angle_changes_next_to_nothing_where_they_are_rounded():
    images = pictures(3, 1, 28, 30)
    assert torch.allclose(rotated(images, torch.zeros(3)), images, rtol=0, atol=1e-4)


def test_back_and_forth_gives_a_smooth_image_back():
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    image = torch.exp(-4 * ((x - 0.2) ** 2 + y**2)).double()[None, None]
    angle = torch.tensor([0.3])
    there = rotated(image, angle)
    assert (there - image).abs().max() > 0.05
    assert (rotated(there, -angle) - image)[:, :, 8:-8, 8:-8].abs().max() < 5e-3


def test_what_lies_outside_is_mirrored_or_zero():
    images = torch.ones(1, 1, 16, 16)
    angle = torch.tensor([0.3])
    assert torch.allclose(rotated(images, angle), images)
    corner = rotated(images, angle, edges="zeros")[0, 0, 0, 0]
    assert corner == 0
    steps = F.pad(torch.ones(1, 1, 16, 8), (0, 8), value=5.0)
    values = rotated(steps, angle)
    assert values.min() >= 1 - 1e-6 and values.max() <= 5 + 1e-6, "nothing but the image's own"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bit_for_bit_the_same_alone_and_in_company(dtype):
    images = pictures(37, 3, 32, 32, dtype)
    angles = 0.7 * torch.rand(37, generator=draw(1), dtype=torch.float64)
    together = rotated(images, angles)
    for k in (0, 17, 36):
        assert torch.equal(rotated(images[k : k + 1], angles[k : k + 1])[0], together[k])
    assert torch.equal(rotated(images[5:12], angles[5:12]), together[5:12])
