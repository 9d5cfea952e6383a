"""PUF's augmentation of prostate slices: right angles and mirrors, the mask with its image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedunlearn.data.augmentation.geometry import moved, quarter_turns


@dataclass(frozen=True)
class Rot90Flip:
    """Turn by a random number of right angles, then swap left and right, then top and bottom, or not.

    Image and mask are moved by the same permutation of pixels: no value changes, and neither against the other.
    Paper: Mora et al., arXiv 2504.05822; which order the turns and flips have does not matter for what comes out
    how often (each of the eight symmetries of a square for an eighth of the samples).

    A row of parameters: quarter turns counter-clockwise (0 to 3), 1 for left and right swapped or 0, the same for
    top and bottom.
    """

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Return ``n`` rows, each number of turns and each swap as likely as any other."""
        rows = torch.rand(n, 3, generator=generator, dtype=torch.float64)
        return (rows * torch.tensor([4.0, 2.0, 2.0])).floor_()

    def apply(self, images: Tensor, targets: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the moved images, and the masks moved with them; labels stay as they are.

        Raises
        ------
        ValueError
            If the images are not square, or masks have another height and width.
        """
        height, width = images.shape[-2:]
        if height != width:
            raise ValueError(
                f"images of {height} × {width} pixels: must be square to be turned by right angles"
            )
        if targets.dim() > 1 and targets.shape[1:] != images.shape[2:]:
            raise ValueError(f"masks of {tuple(targets.shape)} do not cover images of {tuple(images.shape)}")
        turns, swapped, upside_down = parameters.long().unbind(1)
        move = quarter_turns(turns, width).mirrored(swapped, width).upside_down(upside_down, height)
        images = moved(images, move, height, width)
        if targets.dim() > 1:
            targets = moved(targets[:, None], move, height, width)[:, 0]
        return images, targets
