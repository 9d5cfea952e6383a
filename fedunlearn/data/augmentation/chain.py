"""Several augmentations, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fedunlearn.data.augmentation.protocol import Augmentation


@dataclass(frozen=True)
class Chain:
    """Every augmentation is applied to what the one before it made.

    A row of parameters: those of the first, of the second, ….
    """

    steps: tuple[Augmentation, ...]

    @cached_property
    def _widths(self) -> list[int]:
        return [step.draw(0, torch.Generator()).shape[1] for step in self.steps]

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Return ``n`` rows; the first augmentation draws all its numbers first."""
        return torch.cat([step.draw(n, generator) for step in self.steps], dim=1)

    def apply(self, images: Tensor, targets: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the samples, changed by one after the other."""
        for step, own in zip(self.steps, torch.split(parameters, self._widths, dim=1), strict=True):
            images, targets = step.apply(images, targets, own)
        return images, targets
