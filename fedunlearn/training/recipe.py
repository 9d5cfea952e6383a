"""How a client's images become a loss: what differs between tasks in the one local training loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from fedunlearn.data.augmentation import Augmentation

Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs, targets of a batch) → their mean loss, a scalar."""


@dataclass(frozen=True)
class Recipe:
    """What a task trains with, beside the settings in ``TrainConfig``.

    Attributes
    ----------
    loss : callable
        Takes what the model gives for a batch and the batch's targets; returns a scalar.
    augmentation : Augmentation or None
        Applied to every training batch anew; None: images are taken as they are.
    """

    loss: Loss = F.cross_entropy
    augmentation: Augmentation | None = None


CLASSIFY = Recipe()
"""Cross-entropy on images as they are."""
