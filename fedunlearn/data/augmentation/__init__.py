"""Augmentation as batched tensor transforms, with parameters per sample from a generator of our own.

A torchvision v2 transform called on a batch draws one set of parameters for the whole batch, and draws it from
the global generator. Here drawing is one step and applying another: the numbers that a sample is changed by are a
row of a table, so that the same draws give the same images wherever, and in whatever company, they are computed.

A new augmentation is an :class:`Augmentation` in a file of its own and one line in `AUGMENTATIONS`; the parameters
of its function there are named as the fields of ``ModelConfig`` that it needs to know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fedunlearn import registry
from fedunlearn.data.augmentation.protocol import Augmentation
from fedunlearn.data.augmentation.random_crop import EnlargeCropFlip, RotateCropFlip
from fedunlearn.data.augmentation.right_angles import Rot90Flip

if TYPE_CHECKING:
    from fedunlearn.config import Experiment

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "EnlargeCropFlip",
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


AUGMENTATIONS: dict[str, Callable[..., Augmentation | None]] = {
    "none": none,
    "rotate-crop-flip": rotate_crop_flip,
    "enlarge-crop-flip": enlarge_crop_flip,
    "rot90-flip": rot90_flip,
}


def augmentation_of(experiment: Experiment) -> Augmentation | None:
    """Return what ``data.augmentation`` does to the training images of an experiment; None: nothing."""
    return registry.call(
        AUGMENTATIONS, experiment.data.augmentation, key="data.augmentation", config=experiment.model
    )
