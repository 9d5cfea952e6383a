"""What local training minimises, by task."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from fedunlearn.training.recipe import Loss


def dice_cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Return half the sum of cross-entropy and soft Dice loss, a scalar.

    Cross-entropy (nats) is the mean over all pixels of the batch. The soft Dice loss is MONAI's ``DiceLoss``: with
    p the softmax and t the mask of one class, summed over the pixels of one image,

        1 − (2 Σ p t + ε) / (Σ p + Σ t + ε),    ε = 1e-5,

    averaged over images and classes, the background among them.

    Sources: PUF's prostate experiment (arXiv 2504.05822) for the half sum; Milletari, Navab, Ahmadi, "V-Net", 3DV
    2016, for the Dice loss, there with squares in the denominator. Choice of ours: every image has a Dice of its
    own, MONAI's default, where one of the whole batch would weigh images by the size of what is in them.

    Parameters
    ----------
    logits : Tensor, shape (n, classes, height, width)
        Of a type shorter than float32 they are widened first: sums over an image's pixels need the bits.
    masks : Tensor of integers, shape (n, height, width)
        The class of each pixel; uint8 will do.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    classes = masks.long()
    # Not reduced by cross_entropy itself, which on a GPU adds pixels up in whatever order its threads come.
    cross_entropy = F.cross_entropy(logits, classes, reduction="none").mean()
    dice = _dice_loss()(logits, classes.unsqueeze(1))
    return (cross_entropy + dice) / 2


@cache
def _dice_loss() -> Loss:
    from monai.losses.dice import DiceLoss  # takes seconds to import, and no classifier needs it

    loss: Loss = DiceLoss(softmax=True, to_onehot_y=True)
    return loss


LOSSES: Mapping[str, Loss] = {"classification": F.cross_entropy, "segmentation": dice_cross_entropy}
"""By the name of the task, as ``DataConfig.task`` has it."""
