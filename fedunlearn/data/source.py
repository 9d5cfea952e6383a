"""What every source of images hands over, and how its pixels become the numbers a model sees."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedunlearn.data.pixels import Pixels
from fedunlearn.errors import ConfigError

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

    Raises
    ------
    ConfigError
        Arrays that are no images and labels of these classes.
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

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            images, labels = getattr(self, f"{split}_images"), getattr(self, f"{split}_labels")
            if wrong := self._wrong_with(images, labels):
                raise ConfigError(
                    f"the source's {split} split: {wrong}; its files are damaged or of another version"
                )

    def _wrong_with(self, images: Tensor, labels: Tensor) -> str | None:
        """Say why these cannot be a split; None: they can."""
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != len(self.mean):
            shape = "×".join(map(str, images.shape))
            return f"images are {shape} of {images.dtype}, not n×{len(self.mean)}×height×width of torch.uint8"
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            return f"{len(images)} images have labels {tuple(labels.shape)} of {labels.dtype}"
        if not len(images):
            return "it has no images"
        if (brightest := int(images.max())) > self.white:
            return f"a pixel is {brightest}, and white is {self.white:g}"
        if int(labels.min()) < 0 or int(labels.max()) >= len(self.class_names):
            last = len(self.class_names) - 1
            return f"labels run from {labels.min()} to {labels.max()}, and classes from 0 to {last}"
        return None

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
