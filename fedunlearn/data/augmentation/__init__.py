"""Augmentation as batched tensor transforms, with parameters per sample from a generator of our own.

A torchvision v2 transform called on a batch draws one set of parameters for the whole batch, and draws it from
the global generator. Here drawing is one step and applying another: the numbers that a sample is changed by are a
row of a table, so that the same draws give the same images wherever, and in whatever company, they are computed.

A new augmentation is an :class:`Augmentation` in a file of its own and one line in `AUGMENTATIONS`; the parameters
of its function there are named as the fields of ``ModelConfig`` that it needs to know, or ``pixels``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fedunlearn import plugins
from fedunlearn.config.augmentation import steps_of
from fedunlearn.data.augmentation.chain import Chain
from fedunlearn.data.augmentation.policies import Policy
from fedunlearn.data.augmentation.protocol import Augmentation
from fedunlearn.data.augmentation.random_crop import EnlargeCropFlip, PadCropFlip, RotateCropFlip
from fedunlearn.data.augmentation.right_angles import Rot90Flip
from fedunlearn.data.pixels import Pixels
from fedunlearn.errors import ConfigError

if TYPE_CHECKING:
    from fedunlearn.config import Experiment

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "Chain",
    "EnlargeCropFlip",
    "PadCropFlip",
    "Policy",
    "Rot90Flip",
    "RotateCropFlip",
    "augmentation_of",
]


def none() -> None:
    """Training images as they are."""


def rotate_crop_flip() -> RotateCropFlip:
    """Rotated by up to 21.6 degrees, moved by up to a sixteenth, mirrored: PUF on CIFAR."""
    return RotateCropFlip()


def enlarge_crop_flip(input_size: int) -> EnlargeCropFlip:
    """Enlarged beyond model.input-size, cropped to it, mirrored: PUF's MiT-B0."""
    return EnlargeCropFlip(input_size)


def rot90_flip() -> Rot90Flip:
    """Right angles and mirrors, image and mask together: PUF on prostate MRI."""
    return Rot90Flip()


def crop(pixels: Pixels | None) -> PadCropFlip:
    """Padded with black by an eighth (4 of 32 pixels) and cropped to the size before; for digits."""
    return PadCropFlip(_known("crop", pixels), mirror=False)


def crop_flip(pixels: Pixels | None) -> PadCropFlip:
    """Padded with black by an eighth (4 of 32 pixels), cropped, mirrored: the literature's default on CIFAR."""
    return PadCropFlip(_known("crop-flip", pixels))


def randaugment(pixels: Pixels | None) -> Policy:
    """Two random changes of moderate strength: RandAugment, arXiv 1909.13719."""
    return _of_colours("randaugment", pixels)


def autoaugment(pixels: Pixels | None) -> Policy:
    """One of 25 pairs of changes that were searched for on CIFAR-10: AutoAugment, arXiv 1805.09501."""
    return _of_colours("autoaugment", pixels)


def random_erasing() -> Policy:
    """A random rectangle of every other image is erased, after normalising: Random Erasing, arXiv 1708.04896."""
    return Policy("random-erasing", None)


def augmix(pixels: Pixels | None) -> Policy:
    """Chains of small changes, mixed with one another and with the image: AugMix, arXiv 1912.02781."""
    return _of_colours("augmix", pixels)


def trivialaugment(pixels: Pixels | None) -> Policy:
    """One random change of random strength: TrivialAugment (wide), arXiv 2103.10158."""
    return _of_colours("trivialaugment", pixels)


AUGMENTATIONS: dict[str, Callable[..., Augmentation | None]] = {
    "none": none,
    "rotate-crop-flip": rotate_crop_flip,
    "enlarge-crop-flip": enlarge_crop_flip,
    "rot90-flip": rot90_flip,
    "crop": crop,
    "crop-flip": crop_flip,
    "randaugment": randaugment,
    "autoaugment": autoaugment,
    "random-erasing": random_erasing,
    "augmix": augmix,
    "trivialaugment": trivialaugment,
}


def augmentation_of(experiment: Experiment, pixels: Pixels | None) -> Augmentation | None:
    """Return what ``data.augmentation`` does to the training images of an experiment; None: nothing.

    Parameters
    ----------
    experiment
        Names one augmentation, or several joined by +.
    pixels
        What its images were normalised by; None where nobody knows.

    Raises
    ------
    ConfigError
        If an augmentation cannot do with these images.
    """
    steps = [
        plugins.call(AUGMENTATIONS, name, key="data.augmentation", config=experiment.model, pixels=pixels)
        for name in steps_of(experiment.data.augmentation)
    ]
    known = tuple(step for step in steps if step is not None)
    return known[0] if len(known) == 1 else Chain(known) if known else None


def _known(name: str, pixels: Pixels | None) -> Pixels:
    if pixels is None:
        raise ConfigError(
            f'data.augmentation: "{name}" must know what the images were normalised by; write their mean and std '
            "into the data file (fedunlearn.data.export.write_part), or leave it out"
        )
    return pixels


def _of_colours(name: str, pixels: Pixels | None) -> Policy:
    found = _known(name, pixels)
    if len(found.mean) not in (1, 3):
        raise ConfigError(
            f'data.augmentation: "{name}" is for images of 1 or 3 channels, not of {len(found.mean)}; leave it out'
        )
    return Policy(name, found)
