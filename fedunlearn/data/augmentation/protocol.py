"""What an augmentation is: drawing numbers is one step, changing images by them another."""

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

        A sample and its row give the same result, to the last bit, whatever else is in the batch.

        Parameters
        ----------
        images : Tensor, shape (n, channels, height, width)
        targets : Tensor
            Labels, shape (n,), which stay as they are, or masks, shape (n, height, width), which follow the image.
        parameters : Tensor, shape (n, parameters)
            From :meth:`draw`.
        """
        ...


def only_labels(targets: Tensor, name: str) -> None:
    """Refuse masks, which would stay where they are while their image moves."""
    if targets.dim() != 1:
        raise ValueError(
            f'augmentation "{name}" changes images but not targets, and got targets of shape '
            f'{tuple(targets.shape)}; for masks use "rot90-flip"'
        )
