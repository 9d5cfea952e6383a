"""Augmentations that end in a random crop, mirrored or not: of what was padded, rotated or enlarged.

The latter two are PUF's, read in the public code of Mora et al., arXiv 2504.05822.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fedunlearn.data.augmentation.geometry import Edges, Interpolation, crop, moved, rotated
from fedunlearn.data.augmentation.protocol import only_labels
from fedunlearn.data.pixels import Pixels


@dataclass(frozen=True)
class PadCropFlip:
    """Pad with black, crop at random to the size before, mirror half of the images: the literature's default.

    On CIFAR, 32 × 32 pixels are padded by 4 on every side; images of another size get as much in proportion (an
    eighth, at least one pixel), which is ours.

    A row of parameters: top and left of the crop as shares of the places there are, 1 for mirrored or 0.

    Attributes
    ----------
    pixels : Pixels
        What the images were normalised by, and with it what is black.
    mirror : bool
        Whether any image is mirrored; what is cropped does not depend on it.
    """

    pixels: Pixels
    mirror: bool = True

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Return ``n`` rows: places uniform, mirrored or not by a fair coin."""
        rows = torch.rand(n, 3, generator=generator, dtype=torch.float64)
        rows[:, 2] = (rows[:, 2] < 0.5).double() * self.mirror
        return rows

    def apply(self, images: Tensor, targets: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return images of the same shape, and the labels as they are."""
        only_labels(targets, "crop-flip" if self.mirror else "crop")
        height, width = images.shape[-2:]
        above, beside = _padding(height, 8), _padding(width, 8)
        padded = self.pixels.black(images).repeat(len(images), 1, height + 2 * above, width + 2 * beside)
        padded[..., above : above + height, beside : beside + width] = images
        return _cut(padded, parameters, height, width), targets


@dataclass(frozen=True)
class RotateCropFlip:
    """Rotate a little, pad with zeros, crop at random to the size before, mirror half of the images.

    The authors call Keras' layer for the rotation and name only its angle: interpolation and edges are that
    layer's defaults. They pad 32 × 32 pixels by 2 on every side. Images of another size get as much in
    proportion (a sixteenth, at least one pixel), which is ours.

    A row of parameters: angle in radians, top and left of the crop as shares of the places there are, 1 for
    mirrored or 0.

    Attributes
    ----------
    turn : float
        Largest angle, as a share of a full turn, to either side.
    interpolation, edges
        See :func:`~fedunlearn.data.augmentation.geometry.rotated`.
    """

    turn: float = 0.06
    interpolation: Interpolation = "bilinear"
    edges: Edges = "reflection"

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Return ``n`` rows: angles uniform to both sides, places uniform, mirrored or not by a fair coin."""
        rows = torch.rand(n, 4, generator=generator, dtype=torch.float64)
        rows[:, 0] = (2 * rows[:, 0] - 1) * self.turn * 2 * math.pi
        rows[:, 3] = (rows[:, 3] < 0.5).double()
        return rows

    def apply(self, images: Tensor, targets: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return images of the same shape, and the labels as they are."""
        only_labels(targets, "rotate-crop-flip")
        height, width = images.shape[-2:]
        turned = rotated(images, parameters[:, 0], interpolation=self.interpolation, edges=self.edges)
        above, beside = _padding(height, 16), _padding(width, 16)
        padded = F.pad(turned, (beside, beside, above, above))
        return _cut(padded, parameters[:, 1:], height, width), targets


@dataclass(frozen=True)
class EnlargeCropFlip:
    """Enlarge a little further than to the model's input, crop at random to it, mirror half of the images.

    For 224 pixels the authors enlarge to 244 and crop; another size gets as much in proportion, which is ours.
    They normalise afterwards, which bilinear enlarging lets us do before.

    A row of parameters: top and left of the crop as shares of the places there are, 1 for mirrored or 0.

    Attributes
    ----------
    input_size : int
        Height and width of the images in pixels afterwards.
    """

    input_size: int

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Return ``n`` rows: places uniform, mirrored or not by a fair coin."""
        rows = torch.rand(n, 3, generator=generator, dtype=torch.float64)
        rows[:, 2] = (rows[:, 2] < 0.5).double()
        return rows

    def apply(self, images: Tensor, targets: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (n, channels, input_size, input_size), and the labels as they are."""
        only_labels(targets, "enlarge-crop-flip")
        size = self.input_size
        enlarged = F.interpolate(images, size=[round(size * 244 / 224)] * 2, mode="bilinear")
        return _cut(enlarged, parameters, size, size), targets


def _padding(size: int, share: int) -> int:
    """Return the pixels on each side of an image of this height or width: with a share of 16, 2 for 32."""
    return max(1, round(size / share))


def _cut(images: Tensor, parameters: Tensor, height: int, width: int) -> Tensor:
    """Return cuts of this size; per image (share of the places from the top, from the left, mirrored)."""
    places = torch.tensor([images.shape[-2] - height + 1, images.shape[-1] - width + 1])
    top, left = (parameters[:, :2] * places).long().unbind(1)
    move = crop(top, left, images.shape[-1]).mirrored(parameters[:, 2].long(), width)
    return moved(images, move, height, width)
