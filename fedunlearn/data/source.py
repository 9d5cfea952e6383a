"""What every source of images hands over, and how its pixels become the numbers a model sees."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedunlearn.data.pixels import Pixels

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ImageSource:
    """A labelled set of images with its own, fixed split into training and test data.

    Pixels stay integers, as they were scanned, until a precision is asked for: a float64 run sees numbers
    that never went through float32, and the cached copy of a source is an eighth of that size.

    Attributes
    ----------
    train_images, test_images : Tensor
        uint8, (n, channels, height, width).
    train_labels, test_labels : Tensor
        int64, (n,), classes counted from 0.
    class_names : tuple of str
        One name per class.
    white : float
        The value of a full pixel.
    mean, std : tuple of float
        Per channel, of pixels divided by `white`.
    origin : str
        "synthetic" for images that were made up, "" for others.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    white: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str = ""

    @property
    def pixels(self) -> Pixels:
        """What :meth:`normalise` does to pixels in [0, 1]."""
        return Pixels(self.mean, self.std)

    def normalise(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """Return uint8 `images` in `dtype`, brought to zero mean and unit variance per channel.

        Done on the processor, so that every training device starts from the same bits.
        """
        mean = torch.tensor(self.mean, dtype=dtype).view(-1, 1, 1)
        std = torch.tensor(self.std, dtype=dtype).view(-1, 1, 1)
        return images.to(dtype).div_(self.white).sub_(mean).div_(std)
