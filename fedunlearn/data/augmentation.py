"""Augmentation as batched tensor transforms, with parameters per sample from a generator of our own.

A torchvision v2 transform called on a batch draws one set of parameters for the whole batch, and draws it from
the global generator. Here drawing is one step and applying another: the numbers that a sample is changed by are a
row of a table, so that the same draws give the same images wherever, and in whatever company, they are computed.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Augmentation(Protocol):
    """A random change of training images, and of their targets where these are images too."""

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Return the parameters of ``n`` samples, one row each, on the processor: (n, parameters)."""
        ...

    def apply(self, images: Tensor, targets: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the samples changed by their rows of ``parameters``, as new tensors on their device.

        Parameters
        ----------
        images : Tensor, shape (n, channels, height, width)
        targets : Tensor
            Labels, shape (n,), which stay as they are, or masks, shape (n, height, width), which follow the image.
        parameters : Tensor, shape (n, parameters)
            From :meth:`draw`.
        """
        ...
