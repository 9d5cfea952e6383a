"""How many models it is good to train side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedunlearn.config import TrainConfig
from fedunlearn.training.parameterless import fill, hollow

CACHE = 32 << 20
"""Bytes that a stack may touch in a step on a processor: past its caches, each pass waits for memory."""
SHARE_OF_MEMORY = 0.5
"""Of an accelerator's free memory; the other half is for workspaces, and for rounding of this estimate."""


def stack_size(module: nn.Module, image_shape: Sequence[int], settings: TrainConfig) -> int:
    """Return how many of these models to train at once, at least 1.

    On a processor a stack saves the cost of calls, which a few models share, and no arithmetic; it pays as
    long as what it touches in a step stays in the caches. On an accelerator it also fills the device, and memory
    is the limit.

    Parameters
    ----------
    module
        The architecture, where it will be trained.
    image_shape
        Of one image, (channels, height, width).
    settings
        Batch size and optimiser count.
    """
    device = next(module.parameters()).device
    if device.type == "cpu":
        available: float = CACHE
    else:
        available = torch.get_device_module(device).mem_get_info(device)[0] * SHARE_OF_MEMORY
    return max(1, int(available // bytes_per_model(module, image_shape, settings)))


def bytes_per_model(module: nn.Module, image_shape: Sequence[int], settings: TrainConfig) -> int:
    """Return the bytes that a training step of one model needs: weights, optimiser, activations."""
    first = next(module.parameters())
    twin, slots = hollow(module)
    fill(slots, list(module.parameters()))
    weights = sum(p.numel() for p in module.parameters()) * first.element_size()
    # Weights, gradients as autograd returns them and as one vector, and what the optimiser remembers.
    copies = 3 + (2 if settings.optimizer != "sgd" else int(settings.momentum > 0))
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        twin(first.new_zeros(2, *image_shape))
    # Each is there a second time as its gradient, though not all of those at once.
    activations = sum(kept.values()) / 2 * settings.batch_size * 1.5
    return int(copies * weights + activations)
