"""How the brightness of a pixel and the number that a model sees belong together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WHITE = 255
"""The brightest level of an image file."""


@dataclass(frozen=True)
class Pixels:
    """What images were normalised by: a pixel in [0, 1] became (pixel − mean) / std.

    Attributes
    ----------
    mean, std : tuple of float
        Per channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def levels(self, images: Tensor) -> Tensor:
        """Return the levels that normalised images (n, channels, height, width) show: uint8, 0 to 255, rounded."""
        pixels = images * self._of_channels(self.std, images) + self._of_channels(self.mean, images)
        return pixels.mul_(WHITE).round_().clamp_(0, WHITE).to(torch.uint8)

    def range_of(self, images: Tensor) -> tuple[float, float]:
        """Return the least and the largest pixel that normalised images show; 0 to 1 if this is what they went by."""
        by_channel = images.transpose(0, 1).flatten(1)
        ends = torch.stack([by_channel.amin(1), by_channel.amax(1)]).cpu()
        pixels = ends * torch.tensor(self.std, dtype=ends.dtype) + torch.tensor(self.mean, dtype=ends.dtype)
        return float(pixels.min()), float(pixels.max())

    def normalise(self, levels: Tensor, like: Tensor) -> Tensor:
        """Return levels as images, with the dtype of ``like`` and on its device; what ``levels`` takes back."""
        images = levels.to(like.device).to(like.dtype).div_(WHITE)
        return images.sub_(self._of_channels(self.mean, images)).div_(self._of_channels(self.std, images))

    def black(self, like: Tensor) -> Tensor:
        """Return a black pixel as a model sees it, (channels, 1, 1)."""
        return self.normalise(torch.zeros(len(self.mean), 1, 1, dtype=torch.uint8), like)

    @staticmethod
    def _of_channels(numbers: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(numbers, dtype=like.dtype).view(-1, 1, 1).to(like.device, non_blocking=True)
