"""Made-up images whose classes are as hard to tell apart as one asks: no files, any size, any number.

Every class has a *prototype*, a random smooth field; every image has a smooth *distractor* of its own, drawn
like a prototype, and pixel noise, all of unit variance. With d the difficulty an image is, up to contrast,

    (1 − d) · prototype of its class + d · distractor + NOISE · pixel noise

At d = 0 the images of a class differ by noise alone; at d = 1 the label cannot be known. In between a model
that memorises distractors does better on the images it trained on than on others, which is what an unlearning
experiment needs its data to offer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedunlearn.config.conditions import Count, Pixels, at_least, at_most
from fedunlearn.config.settings import Contradiction, SourceSettings
from fedunlearn.data.source import ImageSource
from fedunlearn.errors import ConfigError
from fedunlearn.randomness import numpy_generator

if TYPE_CHECKING:
    from fedunlearn.config import Experiment

# The images do not depend on the experiment's seed, as those of a real data set would not.
DATA_SEED = 0
PROTOTYPES, TRAIN, TEST = 0, 1, 2  # draws of their own: a longer test set leaves the training set as it is
FREQUENCIES = 4
NOISE = 0.3
# Of the pixels before they are rounded to a byte: almost three standard deviations fit without clipping.
MEAN, STD = 0.5, 0.18

Floats = npt.NDArray[np.float32]


MOST_NUMBERS = 2**32
"""Numbers in all images together; 16 GiB."""


@dataclass(frozen=True)
class SyntheticSettings(SourceSettings):
    """Shape, number and difficulty.

    Attributes
    ----------
    num_classes, image_size, channels : int
        Shape of the task; images are square.
    num_train, num_test : int
        Rows, spread evenly over the classes (sizes differ by one at most).
    difficulty : float
        0 (noise alone blurs the classes) to 1 (labels cannot be told from the images).
    """

    num_classes: Annotated[int, at_least(2), at_most(1_000_000)] = 10
    image_size: Annotated[Pixels, at_least(4)] = 8
    channels: Count = 1
    num_train: Count = 2000
    num_test: Count = 500
    difficulty: Annotated[float, at_least(0), at_most(1)] = 0.5

    def known_classes(self) -> int:
        """Return how many classes there will be."""
        return self.num_classes

    def contradictions(self, experiment: "Experiment", path: str) -> Iterator[Contradiction]:
        """Refuse more numbers than fit into any memory."""
        numbers = (self.num_train + self.num_test + self.num_classes) * self.channels * self.image_size**2
        if numbers > MOST_NUMBERS:
            message = (
                f"makes {numbers:,} numbers with channels and image-size; the maximum is {MOST_NUMBERS:,}"
            )
            yield f"{path}.num-train", self.num_train, message


def synthetic_images(settings: SyntheticSettings) -> ImageSource:
    """Made-up images of any size and number, with classes as hard to tell apart as data.difficulty says."""
    num_classes, channels, image_size = settings.num_classes, settings.channels, settings.image_size
    num_train, difficulty = settings.num_train, settings.difficulty
    if num_train < num_classes:
        raise ConfigError(f"data.num-train = {num_train}: must be at least data.num-classes = {num_classes}")
    prototypes = smooth_fields(
        numpy_generator(DATA_SEED, "synthetic", PROTOTYPES), num_classes, channels, image_size
    )

    def draw(stream: int, n: int) -> tuple[Tensor, Tensor]:
        rng = numpy_generator(DATA_SEED, "synthetic", stream)
        labels = rng.permutation(np.arange(n) % num_classes).astype(np.int64)
        distractors = smooth_fields(rng, n, channels, image_size)
        noise = rng.standard_normal(distractors.shape, dtype=np.float32)
        mixed = (1 - difficulty) * prototypes[labels] + difficulty * distractors + NOISE * noise
        mixed /= np.sqrt((1 - difficulty) ** 2 + difficulty**2 + NOISE**2)
        pixels = np.rint(255 * np.clip(MEAN + STD * mixed, 0, 1)).astype(np.uint8)
        return torch.from_numpy(pixels), torch.from_numpy(labels)

    train_images, train_labels = draw(TRAIN, num_train)
    test_images, test_labels = draw(TEST, settings.num_test)
    return ImageSource(
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        class_names=tuple(f"class {number}" for number in range(num_classes)),
        white=255.0,
        mean=(MEAN,) * channels,
        std=(STD,) * channels,
        origin="synthetic",
    )


def smooth_fields(rng: np.random.Generator, n: int, channels: int, size: int) -> Floats:
    """Draw `n` random low-frequency images; every channel has zero mean and unit variance.

    Returns
    -------
    ndarray
        float32, (n, channels, size, size).
    """
    frequencies = np.arange(min(FREQUENCIES, size))
    # Rows of the discrete cosine transform: all but the constant one sum to zero over the pixels.
    waves = np.cos(np.pi * np.outer(frequencies, np.arange(size) + 0.5) / size).astype(np.float32)
    amplitudes = rng.standard_normal((n, channels, len(waves), len(waves)), dtype=np.float32)
    amplitudes[:, :, 0, 0] = 0
    fields = np.einsum("fx,ncfg,gy->ncxy", waves, amplitudes, waves, optimize=True)
    normalised: Floats = fields / fields.std(axis=(2, 3), keepdims=True)
    return normalised
