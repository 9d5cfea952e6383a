"""The 1 797 real handwritten digits that ship inside scikit-learn: 8 × 8 pixels of 17 grey levels."""

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import torch

from fedunlearn.config.settings import SourceSettings
from fedunlearn.data.source import ImageSource
from fedunlearn.data.split import stratified_test_split

TEST_SHARE = 0.2
# Of the training rows of the fixed split.
MEAN, STD = 0.3054, 0.3761


@dataclass(frozen=True)
class DigitsSettings(SourceSettings):
    """None."""

    classes: ClassVar[int | None] = 10


DEFAULTS = DigitsSettings()


@cache
def digits(settings: DigitsSettings = DEFAULTS) -> ImageSource:
    """1 797 real handwritten digits (scikit-learn), 8 × 8 × 1, 10 classes, 1 438 train / 359 test.

    A fifth of every class is test data, by a split that is the same in every experiment.
    """
    from sklearn.datasets import load_digits  # lazily: the library imports without it

    bundle = load_digits()
    images = torch.from_numpy(bundle.images.astype(np.uint8)).unsqueeze(1)
    labels = bundle.target.astype(np.int64)
    train, test = stratified_test_split(labels, TEST_SHARE)
    return ImageSource(
        train_images=images[train],
        train_labels=torch.from_numpy(labels[train]),
        test_images=images[test],
        test_labels=torch.from_numpy(labels[test]),
        class_names=tuple("0123456789"),
        white=16.0,
        mean=(MEAN,),
        std=(STD,),
    )
