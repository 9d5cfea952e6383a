"""Movements of whole batches in which every sample moves by numbers of its own."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Interpolation = Literal["bilinear", "nearest"]
Edges = Literal["reflection", "zeros"]


class Move(NamedTuple):
    """Where samples take their pixels from: pixel (i, j) is number ``first + i · down + j · right``.

    Source pixels are numbered row by row from 0. Each field is an int64 Tensor (n,), one number per sample. With
    three integers a sample is cropped, mirrored and turned by right angles, without a pixel changing its value.
    """

    first: Tensor
    down: Tensor
    right: Tensor

    def mirrored(self, which: Tensor, width: int) -> Move:
        """Return the move, followed by swapping left and right where ``which`` (n,) is 1 and not 0."""
        return Move(self.first + which * (width - 1) * self.right, self.down, self.right * (1 - 2 * which))

    def upside_down(self, which: Tensor, height: int) -> Move:
        """Return the move, followed by swapping top and bottom where ``which`` (n,) is 1 and not 0."""
        return Move(self.first + which * (height - 1) * self.down, self.down * (1 - 2 * which), self.right)


def crop(top: Tensor, left: Tensor, width: int) -> Move:
    """Return the cut that begins at these pixels (n,) of images of this width."""
    return Move(top * width + left, torch.full_like(top, width), torch.ones_like(top))


def quarter_turns(turns: Tensor, side: int) -> Move:
    """Return the turn of square images by 0 to 3 right angles (n,), counter-clockwise as ``torch.rot90``."""
    last = side - 1
    first = torch.tensor([0, last, side * side - 1, last * side])
    down = torch.tensor([side, -1, -side, 1])
    right = torch.tensor([1, side, -1, -side])
    return Move(first[turns], down[turns], right[turns])


def moved(images: Tensor, move: Move, height: int, width: int) -> Tensor:
    """Return new images (n, channels, height, width) whose pixels are those that ``move`` names.

    Images (n, channels, any height, any width) of any dtype, on any device. Pixels are copied, not computed.
    """
    # On its way once, and without waiting for what an accelerator is busy with: nobody changes it here.
    first, down, right = torch.stack(move).to(images.device, non_blocking=True)
    rows = first[:, None] + down[:, None] * torch.arange(height, device=images.device)
    columns = right[:, None] * torch.arange(width, device=images.device)
    numbers = (rows[:, :, None] + columns[:, None, :]).view(len(images), 1, height * width)
    pixels = images.flatten(2).gather(2, numbers.expand(-1, images.shape[1], -1))
    return pixels.view(*images.shape[:2], height, width)


def rotated(
    images: Tensor, angles: Tensor, *, interpolation: Interpolation = "bilinear", edges: Edges = "reflection"
) -> Tensor:
    """Return the images (n, channels, height, width), each rotated about its centre by its own angle.

    An angle of 0 returns an image to the last bit if height and width are powers of two, else up to the rounding
    of pixel coordinates.

    Parameters
    ----------
    images : Tensor
        Floating point.
    angles : Tensor, shape (n,)
        Radians, counter-clockwise, on the processor.
    interpolation
        Between the four pixels around a point, or the nearest.
    edges
        What lies outside: the image mirrored at its edge (c b a | a b c), or zeros.
    """
    height, width = images.shape[-2:]
    # Cosines one by one: vectorised ones may round the last of a batch otherwise than the same number alone.
    turns = [(math.cos(angle), math.sin(angle)) for angle in angles.tolist()]
    steps = [[[c, s * width / height], [-s * height / width, c]] for c, s in turns]
    table = torch.tensor(steps, dtype=images.dtype).to(images.device, non_blocking=True)
    right, down = table.view(len(images), 2, 1, 1, 2).unbind(1)
    # From -1 at an image's one edge to 1 at its other, at the centres of its pixels.
    x = _centres(width, images)[:, None] * right
    y = _centres(height, images)[:, None, None] * down
    return F.grid_sample(images, x + y, mode=interpolation, padding_mode=edges, align_corners=False)


def _centres(size: int, like: Tensor) -> Tensor:
    return torch.arange(1 - size, size, 2, dtype=like.dtype, device=like.device) / size
