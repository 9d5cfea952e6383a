"""The optimisers of local training, on flat weights: a model's vector, or a stack's matrix with a row per model."""

from typing import Protocol

import torch
from torch import Tensor, nn

from fedunlearn.config import TrainConfig
from fedunlearn.models.flat import FlatModel
from fedunlearn.training.large_sgd import LargeSGD


class FlatWeights(Protocol):
    """Weights in one tensor, and their gradient in another of the same shape."""

    vector: Tensor
    gradient: Tensor
    parameter: nn.Parameter
    """Both, as the one parameter that an optimiser of PyTorch needs to see."""


class FlatSGD:
    """``torch.optim.SGD`` on flat weights: the same numbers bit for bit, at a fraction of the cost.

    An optimiser object and its step take several times as long as these operations on a small model; on
    a large one, its temporary for weight decay takes several times as long as the operations themselves.
    """

    def __init__(self, model: FlatWeights, lr: float, momentum: float, weight_decay: float) -> None:
        self.model = model
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.velocity: Tensor | None = None

    def step(self) -> None:
        """Overwrite the weights; the gradient is used up."""
        vector, gradient = self.model.vector, self.model.gradient
        if self.weight_decay:
            gradient.add_(vector, alpha=self.weight_decay)
        if self.momentum:
            if self.velocity is None:
                self.velocity = gradient.clone()
            else:
                self.velocity.mul_(self.momentum).add_(gradient)
            gradient = self.velocity
        vector.add_(gradient, alpha=-self.lr)


Optimizer = FlatSGD | LargeSGD | torch.optim.Adam | torch.optim.AdamW


def make_optimizer(model: FlatWeights, settings: TrainConfig, lr: float) -> Optimizer:
    """Return a fresh optimiser; clients start every round with one.

    A :class:`LargeSGD` wants the gradients of its model dropped before each step, the others want them cleared.
    """
    if settings.optimizer == "sgd":
        if isinstance(model, FlatModel) and LargeSGD.suits(model):
            return LargeSGD(model, lr, settings.momentum, settings.weight_decay)
        return FlatSGD(model, lr, settings.momentum, settings.weight_decay)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind([model.parameter], lr=lr, weight_decay=settings.weight_decay)


def keep_first(optimizer: Optimizer, num_models: int) -> None:
    """Drop what the optimiser of a stack remembers of all but its first models."""
    assert not isinstance(optimizer, LargeSGD), "a stack is no single model"
    if isinstance(optimizer, FlatSGD):
        if optimizer.velocity is not None:
            optimizer.velocity = optimizer.velocity[:num_models]
        return
    for state in optimizer.state.values():
        for name, value in state.items():
            if value.dim() == 2:  # a row per model; the step count is one number for all
                state[name] = value[:num_models]
