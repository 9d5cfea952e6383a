"""What a method is given to forget, and to retain."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Examples(NamedTuple):
    """Images and what is to be said of them, on the model's device and in its dtype.

    Attributes
    ----------
    images : Tensor, shape (n, channels, height, width)
    labels : Tensor, shape (n,) or (n, height, width)
        Classes (int64), or masks.
    """

    images: Tensor
    labels: Tensor

    @property
    def size(self) -> int:
        """Number of examples; ``len`` is that of the pair."""
        return len(self.labels)

    def select(self, rows: Tensor) -> Examples:
        """Return some of them, in the order of ``rows``."""
        return Examples(self.images.index_select(0, rows), self.labels.index_select(0, rows))
