"""What measures and attacks read of a model's outputs on a split, whatever the task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

QUALITY: Mapping[str, str] = {"classification": "accuracy", "segmentation": "dice"}
"""By task, what it calls the quality of a model, in percent: recovery is judged by it, it is measured as
``forget_<quality>`` and the like, and logged round by round as ``<split>-<quality>``."""


class Unmeasurable(ValueError):  # noqa: N818 - a finding about the data, not a defect
    """The data at hand do not allow this measure; the message is the reason shown beside the null."""


class Scored(Protocol):
    """Outputs on n examples (images to classify, or slices to segment) in the split's order.

    Every array raises ``Unmeasurable`` where the model's outputs are not numbers.
    """

    def __len__(self) -> int: ...

    def take(self, indices: npt.ArrayLike) -> Self:
        """Return the outputs of these examples only, in the order given."""

    @property
    def num_classes(self) -> int:
        """Number of classes, of images or of pixels."""

    @property
    def label_array(self) -> Integers:
        """The label of each example, (n,); ``Unmeasurable`` where an example has none."""

    @property
    def qualities(self) -> Floats:
        """How good each example's prediction is, in percent, (n,); the mean is the task's ``QUALITY``."""

    def class_qualities(self) -> list[Floats]:
        """Return, class by class, the qualities of the examples that the class is part of."""

    @property
    def losses(self) -> Floats:
        """The task's loss of each example in nats, (n,)."""

    @property
    def confidences(self) -> Floats:
        """Softmax probability of what is true, (n,); of a slice the mean over its pixels."""

    @property
    def margins(self) -> Floats:
        """log(c / (1 - c)) of the confidences c, without the rounding of 1 - c, (n,)."""
