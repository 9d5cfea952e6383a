"""Augmentation: every sample by numbers of its own, from no generator but the one that is given."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from fedunlearn.data.augmentation import (
    Chain,
    EnlargeCropFlip,
    PadCropFlip,
    Policy,
    Rot90Flip,
    RotateCropFlip,
    augmentation_of,
)
from fedunlearn.data.pixels import Pixels
from tests.e2e.tiny import tiny

CIFAR = Pixels((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
POLICIES = [
    *(Policy(name, CIFAR) for name in ("randaugment", "autoaugment", "augmix", "trivialaugment")),
    Policy("random-erasing", None),
]
MOVING = [RotateCropFlip(), EnlargeCropFlip(40), Rot90Flip(), PadCropFlip(CIFAR), PadCropFlip(CIFAR, False)]
ALL = [*MOVING, *POLICIES, Chain((PadCropFlip(CIFAR), *POLICIES))]
OF_LABELS = [augmentation for augmentation in ALL if not isinstance(augmentation, Rot90Flip)]


def named(augmentation):
    return getattr(augmentation, "name", type(augmentation).__name__)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n=8, channels=3, side=32, dtype=torch.float32, seed=0):
    return torch.randn(n, channels, side, side, generator=generator(seed), dtype=torch.float64).to(dtype)


def classes(n=8):
    return torch.arange(n)


def row(*numbers):
    return torch.tensor([numbers], dtype=torch.float64)


# -- each its own, wherever it is ---------------------------------------------------------------------------------


@pytest.mark.parametrize("augmentation", ALL, ids=named)
def test_two_images_of_one_batch_are_changed_differently(augmentation):
    """Called on a batch, torchvision's transforms would do the same to all of it."""
    images = pictures(1).expand(32, -1, -1, -1)
    changed, _ = augmentation.apply(images, classes(32), augmentation.draw(32, generator()))
    different = {image.numpy().tobytes() for image in changed}
    expected = {Rot90Flip: 7, EnlargeCropFlip: 20, PadCropFlip: 20, Policy: 10}
    assert len(different) >= expected.get(type(augmentation), 32)


def test_two_images_of_one_batch_are_cropped_rotated_and_mirrored_each_by_itself():
    for column, distinct in ((0, 32), (1, 32), (2, 32), (3, 2)):
        rows = RotateCropFlip().draw(32, generator())
        assert len(rows[:, column].unique()) == distinct
        still = row(0, 0.5, 0.5, 0).repeat(32, 1)
        still[:, column] = rows[:, column]
        changed, _ = RotateCropFlip().apply(pictures(1).expand(32, -1, -1, -1), classes(32), still)
        seen = len({image.numpy().tobytes() for image in changed})
        assert seen == {0: 32, 1: 5, 2: 5, 3: 2}[column], "five places, as 32 pixels are padded to 36"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("augmentation", ALL, ids=named)
def test_the_same_draws_give_the_same_bits_alone_and_in_a_batch(augmentation, dtype):
    images, rows = pictures(33, dtype=dtype), augmentation.draw(33, generator())
    changed, labels = augmentation.apply(images, classes(33), rows)
    assert changed.dtype == dtype and torch.equal(labels, classes(33))
    for k in (0, 16, 32):
        alone, label = augmentation.apply(images[k : k + 1], classes(33)[k : k + 1], rows[k : k + 1])
        assert torch.equal(alone[0], changed[k]) and label.item() == k


@pytest.mark.parametrize("augmentation", ALL, ids=named)
def test_nothing_is_changed_in_place(augmentation):
    images, rows = pictures(), augmentation.draw(8, generator())
    masks = torch.randint(2, (8, 32, 32), generator=generator()).byte()
    targets = masks if isinstance(augmentation, Rot90Flip) else classes()
    before = [x.clone() for x in (images, targets, rows)]
    changed, _ = augmentation.apply(images, targets, rows)
    changed.fill_(7)
    assert all(torch.equal(a, b) for a, b in zip((images, targets, rows), before, strict=True))


@pytest.mark.parametrize("augmentation", ALL, ids=named)
def test_the_global_generators_are_neither_read_nor_moved(augmentation):
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        rows = augmentation.draw(8, generator(5))
        found.append(augmentation.apply(pictures(), classes(), rows)[0])
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*found)
    assert not torch.equal(augmentation.draw(8, generator(6)), rows), "but the given one is"


@pytest.mark.parametrize("augmentation", MOVING, ids=named)
def test_the_precision_of_the_images_does_not_change_what_happens_to_them(augmentation):
    rows = augmentation.draw(8, generator())
    narrow, wide = (
        augmentation.apply(pictures(dtype=t), classes(), rows)[0] for t in (torch.float32, torch.float64)
    )
    assert torch.allclose(narrow.double(), wide, rtol=0, atol=1e-4)


# -- what is drawn ------------------------------------------------------------------------------------------------

MANY = 200_000
"""With a fixed seed: bounds of five standard errors are met, or not, once and for all."""


def near(values, mean, deviation):
    return abs(values.mean().item() - mean) < 5 * deviation / math.sqrt(MANY)


def test_rotations_are_uniform_to_both_sides_and_places_too():
    angles, top, left, mirrored = RotateCropFlip().draw(MANY, generator()).unbind(1)
    most = 0.06 * 2 * math.pi
    assert angles.abs().max() <= most and angles.max() > 0.99 * most and angles.min() < -0.99 * most
    assert near(angles, 0, most / math.sqrt(3))
    assert near(angles.abs(), most / 2, most / math.sqrt(12)), "uniform, and not only symmetric"
    for share in (top, left):
        assert share.min() >= 0 and share.max() < 1
        for place in range(5):
            assert near(((share * 5).long() == place).double(), 0.2, 0.4)
    assert near(mirrored, 0.5, 0.5) and set(mirrored.tolist()) == {0.0, 1.0}
    together = torch.corrcoef(torch.stack([angles, top, left, mirrored]))
    assert (together - torch.eye(4)).abs().max() < 5 / math.sqrt(MANY), "and independent of one another"


def test_enlarged_images_are_cropped_anywhere_and_half_of_them_mirrored():
    top, left, mirrored = EnlargeCropFlip(224).draw(MANY, generator()).unbind(1)
    for share in (top, left):
        assert near((share * 21).long().double(), 10, math.sqrt((21**2 - 1) / 12))
        assert set((share * 21).long().tolist()) == set(range(21))
    assert near(mirrored, 0.5, 0.5) and set(mirrored.tolist()) == {0.0, 1.0}


def test_each_symmetry_of_a_square_comes_as_often():
    image = torch.arange(4.0).view(1, 1, 2, 2).expand(MANY, -1, -1, -1)
    rows = Rot90Flip().draw(MANY, generator())
    changed, _ = Rot90Flip().apply(image, torch.zeros(MANY), rows)
    kinds, counts = changed.flatten(1).unique(dim=0, return_counts=True)
    assert len(kinds) == 8
    assert (counts / MANY - 1 / 8).abs().max() < 5 * math.sqrt(7 / 64 / MANY)
    for column, values in ((0, 4), (1, 2), (2, 2)):
        assert rows[:, column].unique().tolist() == list(range(values))


# -- what becomes of images ----------------------------------------------------------------------------------------


def test_no_angle_the_centre_and_no_mirror_change_no_bit():
    images = pictures()
    changed, _ = RotateCropFlip().apply(images, classes(), row(0, 0.5, 0.5, 0).repeat(8, 1))
    assert torch.equal(changed, images)
    changed, _ = Rot90Flip().apply(images, classes(), row(0, 0, 0).repeat(8, 1))
    assert torch.equal(changed, images)


def test_mirrored_twice_and_turned_four_times_are_as_before():
    images = pictures()
    for augmentation, numbers, times in (
        (RotateCropFlip(), (0, 0.5, 0.5, 1), 2),
        (Rot90Flip(), (0, 1, 0), 2),
        (Rot90Flip(), (0, 0, 1), 2),
        (Rot90Flip(), (1, 0, 0), 4),
        (Rot90Flip(), (2, 1, 1), 1),
    ):
        found = images
        for step in range(times):
            found, _ = augmentation.apply(found, classes(), row(*numbers).repeat(8, 1))
            assert torch.equal(found, images) == (step == times - 1)


def test_a_mirrored_image_is_mirrored_to_the_bit():
    images = pictures()
    changed, _ = RotateCropFlip().apply(images, classes(), row(0, 0.5, 0.5, 1).repeat(8, 1))
    assert torch.equal(changed, images.flip(3))
    plain = RotateCropFlip().apply(images, classes(), row(0.2, 0.1, 0.9, 0).repeat(8, 1))[0]
    mirrored = RotateCropFlip().apply(images, classes(), row(0.2, 0.1, 0.9, 1).repeat(8, 1))[0]
    assert torch.equal(mirrored, plain.flip(3))


@pytest.mark.parametrize(
    ("shape", "padding"),
    [((8, 8), (1, 1)), ((28, 28), (2, 2)), ((32, 32), (2, 2)), ((64, 64), (4, 4)), ((16, 48), (1, 3))],
)
def test_rotating_cropping_and_mirroring_are_torchvision_s_one_by_one(shape, padding):
    """In double precision; 1e-10 is for the coordinates of the rotation, which torchvision rounds otherwise."""
    images = torch.randn(8, 3, *shape, generator=generator(), dtype=torch.float64)
    rows = RotateCropFlip().draw(8, generator())
    changed, _ = RotateCropFlip().apply(images, classes(), rows)
    assert changed.shape == images.shape
    above, beside = padding
    for k, (angle, top, left, mirrored) in enumerate(rows.tolist()):
        canvas = vision.pad(images[k], [min(shape)] * 4, padding_mode="symmetric")
        canvas = vision.rotate(canvas, math.degrees(angle), InterpolationMode.BILINEAR)
        padded = vision.pad(vision.center_crop(canvas, list(shape)), [beside, above, beside, above])
        corner = int(top * (2 * above + 1)), int(left * (2 * beside + 1))
        expected = vision.crop(padded, *corner, *shape)
        expected = vision.horizontal_flip(expected) if mirrored else expected
        assert torch.allclose(changed[k], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("shape", "padding"), [((8, 8), (1, 1)), ((28, 28), (4, 4)), ((32, 32), (4, 4)), ((16, 48), (2, 6))]
)
@pytest.mark.parametrize("mirror", [True, False])
def test_padding_cropping_and_mirroring_are_torchvision_s_before_normalising(shape, padding, mirror):
    """The papers crop and mirror what the image file has, and normalise afterwards."""
    levels = torch.randint(256, (16, 3, *shape), generator=generator(), dtype=torch.uint8)
    augmentation = PadCropFlip(CIFAR, mirror)
    rows = augmentation.draw(16, generator())
    images = torch.stack([normalised(each, torch.float32) for each in levels])
    changed, _ = augmentation.apply(images, classes(16), rows)
    above, beside = padding
    flipped = 0
    for k, (top, left, mirrored) in enumerate(rows.tolist()):
        padded = vision.pad(levels[k], [beside, above, beside, above])
        corner = int(top * (2 * above + 1)), int(left * (2 * beside + 1))
        expected = vision.crop(padded, *corner, *shape)
        expected = vision.horizontal_flip(expected) if mirrored else expected
        assert torch.equal(changed[k], normalised(expected, torch.float32))
        flipped += mirrored
    assert 0 < flipped < 16 if mirror else flipped == 0


def normalised(levels, dtype):
    """Return one image's levels as a source hands them over."""
    mean, std = (torch.tensor(numbers, dtype=dtype).view(3, 1, 1) for numbers in (CIFAR.mean, CIFAR.std))
    return (levels.to(dtype) / 255 - mean) / std


@pytest.mark.parametrize(("input_size", "enlarged"), [(224, 244), (64, 70), (32, 35)])
def test_enlarging_cropping_and_mirroring_are_torchvision_s_one_by_one(input_size, enlarged):
    augmentation = EnlargeCropFlip(input_size)
    images, rows = pictures(5, dtype=torch.float64), augmentation.draw(5, generator())
    changed, _ = augmentation.apply(images, classes(5), rows)
    assert changed.shape == (5, 3, input_size, input_size)
    for k, (top, left, mirrored) in enumerate(rows.tolist()):
        whole = vision.resize(images[k], [enlarged, enlarged], InterpolationMode.BILINEAR, antialias=False)
        places = enlarged - input_size + 1
        expected = vision.crop(whole, int(top * places), int(left * places), input_size, input_size)
        expected = vision.horizontal_flip(expected) if mirrored else expected
        assert torch.allclose(changed[k], expected, rtol=0, atol=1e-10)


def test_normalising_before_enlarging_is_normalising_after():
    """The authors normalise last; a bilinear mean of normalised pixels is the normalised mean."""
    images, rows = pictures(dtype=torch.float64), EnlargeCropFlip(64).draw(8, generator())
    before = EnlargeCropFlip(64).apply((images - 0.3) / 0.25, classes(), rows)[0]
    after = (EnlargeCropFlip(64).apply(images, classes(), rows)[0] - 0.3) / 0.25
    assert torch.allclose(before, after, rtol=0, atol=1e-12)


# -- masks --------------------------------------------------------------------------------------------------------


@given(side=st.integers(1, 9), seed=st.integers(0, 99))
def test_a_mask_moves_with_its_image(side, seed):
    """Images that are equal to their masks are so afterwards."""
    masks = torch.randint(200, (9, side, side), generator=generator(seed)).byte()
    images = masks[:, None].expand(-1, 3, -1, -1).float()
    rows = Rot90Flip().draw(9, generator(seed))
    changed, moved = Rot90Flip().apply(images, masks, rows)
    assert moved.dtype == torch.uint8 and moved.shape == masks.shape
    assert torch.equal(changed, moved[:, None].expand(-1, 3, -1, -1).float())


def test_what_does_not_fit_is_refused():
    rows = Rot90Flip().draw(2, generator())
    with pytest.raises(ValueError, match="images of 4 × 6 pixels: must be square"):
        Rot90Flip().apply(torch.zeros(2, 3, 4, 6), torch.zeros(2, 4, 6), rows)
    with pytest.raises(ValueError, match=r"masks of \(2, 3, 3\) do not cover images of \(2, 3, 4, 4\)"):
        Rot90Flip().apply(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 3), rows)


@pytest.mark.parametrize("augmentation", OF_LABELS, ids=named)
def test_masks_are_not_left_behind(augmentation):
    with pytest.raises(ValueError, match=r'got targets of shape \(2, 8, 8\); for masks use "rot90-flip"'):
        augmentation.apply(pictures(2, side=8), torch.zeros(2, 8, 8), augmentation.draw(2, generator()))


# -- by name ------------------------------------------------------------------------------------------------------


def test_an_experiment_s_augmentation_is_the_one_it_names():
    assert augmentation_of(tiny(), None) is None
    assert augmentation_of(tiny("data.augmentation=rotate-crop-flip"), None) == RotateCropFlip()
    assert augmentation_of(tiny("data.augmentation=crop"), CIFAR) == PadCropFlip(CIFAR, mirror=False)
    assert augmentation_of(tiny("data.augmentation=crop-flip+random-erasing"), CIFAR) == Chain(
        (PadCropFlip(CIFAR), Policy("random-erasing", None))
    )
    enlarging = tiny("data.augmentation=enlarge-crop-flip", "model.name=mit-b0", "model.input-size=64")
    assert augmentation_of(enlarging, None) == EnlargeCropFlip(64)
    slices = tiny(
        "data.augmentation=rot90-flip",
        "data.source=prostate-mri",
        "data.directory=somewhere",
        "data.partition=site",
        "federation.num-clients=6",
        "model.name=unet",
    )
    assert augmentation_of(slices, None) == Rot90Flip()


def test_zeros_and_the_nearest_pixel_are_options():
    images, rows = pictures(), RotateCropFlip().draw(8, generator())
    found = [
        RotateCropFlip(interpolation=i, edges=e).apply(images, classes(), rows)[0]
        for i in ("bilinear", "nearest")
        for e in ("reflection", "zeros")
    ]
    assert len({each.numpy().tobytes() for each in found}) == 4
    values = set(F.pad(images, (1, 1)).flatten().tolist())
    assert set(found[2].flatten().tolist()) <= values and not set(found[0].flatten().tolist()) <= values
