"""Augmentation as batched tensor transforms, with parameters per sample from a generator of our own.

A torchvision v2 transform called on a batch draws one set of parameters for the whole batch, and draws it from
the global generator. Here drawing is one step and applying another: the numbers that a sample is changed by are a
row of a table, so that the same draws give the same images wherever, and in whatever company, they are computed.

A new augmentation is an :class:`Augmentation` in a file of its own, a function here that makes it, and one line in
:mod:`fedunlearn.plugins`. The function takes, of what it needs to know, ``pixels`` (what the images were normalised
by) and ``model`` (the model's settings).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fedunlearn import plugins
from fedunlearn.config.augmentation import steps_of
from fedunlearn.config.settings import AugmentationSettings, Contradiction
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
    "Augmentation",
    "Chain",
    "EnlargeCropFlip",
    "PadCropFlip",
    "Policy",
    "Rot90Flip",
    "RotateCropFlip",
    "augmentation_of",
]


@dataclass(frozen=True)
class Anything(AugmentationSettings):
    """Of what can be done to images of any task."""

    tasks: ClassVar[tuple[str, ...]] = ("classification", "segmentation")


@dataclass(frozen=True)
class WithMasks(AugmentationSettings):
    """Of what is done to image and mask together."""

    tasks: ClassVar[tuple[str, ...]] = ("segmentation",)


@dataclass(frozen=True)
class Enlarging(AugmentationSettings):
    """Of what makes images as large as the model has them."""

    def contradictions(self, experiment: Experiment, path: str) -> Iterator[Contradiction]:
        """Refuse a model that takes images of the size that they have."""
        if not hasattr(experiment.model.settings, "input_size"):
            right = "belongs to a model that enlarges its images to input-size, such as mit-b0"
            yield f"{path}.augmentation", experiment.data.augmentation, right


@dataclass(frozen=True)
class OfColours(AugmentationSettings):
    """Of what is defined for grey and for RGB images alone."""

    def contradictions(self, experiment: Experiment, path: str) -> Iterator[Contradiction]:
        """Refuse made-up images of other channels, where the settings say how many there are."""
        channels = getattr(experiment.data.source_settings, "channels", 1)
        if channels not in (1, 3):
            right = f'must be 1 or 3 with data.augmentation = "{experiment.data.augmentation}"'
            yield f"{path}.channels", channels, right


ANYTHING, WITH_MASKS, ENLARGING, OF_COLOURS = Anything(), WithMasks(), Enlarging(), OfColours()


def none(settings: Anything = ANYTHING) -> None:
    """Training images as they are."""


def rotate_crop_flip() -> RotateCropFlip:
    """Rotated by up to 21.6 degrees, moved by up to a sixteenth, mirrored: PUF on CIFAR."""
    return RotateCropFlip()


def enlarge_crop_flip(model: Any, settings: Enlarging = ENLARGING) -> EnlargeCropFlip:
    """Enlarged beyond model.input-size, cropped to it, mirrored: PUF's MiT-B0."""
    return EnlargeCropFlip(model.input_size)


def rot90_flip(settings: WithMasks = WITH_MASKS) -> Rot90Flip:
    """Right angles and mirrors, image and mask together: PUF on prostate MRI."""
    return Rot90Flip()


def crop(pixels: Pixels | None) -> PadCropFlip:
    """Padded with black by an eighth (4 of 32 pixels) and cropped to the size before; for digits."""
    return PadCropFlip(_known("crop", pixels), mirror=False)


def crop_flip(pixels: Pixels | None) -> PadCropFlip:
    """Padded with black by an eighth (4 of 32 pixels), cropped, mirrored: the literature's default on CIFAR."""
    return PadCropFlip(_known("crop-flip", pixels))


def randaugment(pixels: Pixels | None, settings: OfColours = OF_COLOURS) -> Policy:
    """Two random changes of moderate strength: RandAugment, arXiv 1909.13719."""
    return _of_colours("randaugment", pixels)


def autoaugment(pixels: Pixels | None, settings: OfColours = OF_COLOURS) -> Policy:
    """One of 25 pairs of changes that were searched for on CIFAR-10: AutoAugment, arXiv 1805.09501."""
    return _of_colours("autoaugment", pixels)


def random_erasing() -> Policy:
    """A random rectangle of every other image is erased, after normalising: Random Erasing, arXiv 1708.04896."""
    return Policy("random-erasing", None)


def augmix(pixels: Pixels | None, settings: OfColours = OF_COLOURS) -> Policy:
    """Chains of small changes, mixed with one another and with the image: AugMix, arXiv 1912.02781."""
    return _of_colours("augmix", pixels)


def trivialaugment(pixels: Pixels | None, settings: OfColours = OF_COLOURS) -> Policy:
    """One random change of random strength: TrivialAugment (wide), arXiv 2103.10158."""
    return _of_colours("trivialaugment", pixels)


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
    steps = []
    for name in steps_of(experiment.data.augmentation):
        step = plugins.call("augmentations", name, pixels=pixels, model=experiment.model.settings)
        if step is not None and not (hasattr(step, "draw") and hasattr(step, "apply")):
            given = type(step).__name__
            raise ConfigError(
                f'data.augmentation: "{name}" returned a {given}, but must return an Augmentation'
            )
        steps.append(step)
    known: tuple[Augmentation, ...] = tuple(step for step in steps if step is not None)
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
