"""Many models of one architecture as one matrix, a row of weights per model: the sibling of FlatModel."""

from collections.abc import Iterable
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

KEPT_WINDOWS = 64
"""So many windows are kept ready to be opened again."""


class FlatStack:
    """A matrix of weights, a flat row per model, and a window on those rows that are trained together.

    The memory stays from one use to the next: nothing is allocated unless there are more models than before.

    Parameters
    ----------
    parameters
        Those of one model, in the order of its flat vector; their shapes, dtype and device matter.

    Attributes
    ----------
    rows : Tensor
        The weights of all models, shape ``(models, num_parameters)``.
    vector, gradient : Tensor
        The window of ``rows``, and its gradients: what an optimiser steps on.
    parameter : nn.Parameter
        ``vector`` and ``gradient`` as the one parameter that an optimiser of PyTorch needs to see.
    weights : list[Tensor]
        Per parameter of the architecture its values in the window, shape ``(models, *shape)``: views of
        ``rows`` and leaves of autograd.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        like = list(parameters)
        self._shapes = [p.shape for p in like]
        self._ends = [0, *accumulate(p.numel() for p in like)]
        self.num_parameters = self._ends[-1]
        self._room = torch.empty((0, self.num_parameters), dtype=like[0].dtype, device=like[0].device)
        self._gradients = torch.empty_like(self._room)
        self.rows = self._room
        self._opened: dict[tuple[int, int], list[Tensor]] = {}
        self.open(0, 0)

    def load(self, start: Tensor, num_models: int) -> None:
        """Fill the rows of so many models: all with one vector, or each with its own row.

        Raises
        ------
        ValueError
            If ``start`` has another shape than ``(num_parameters,)`` or ``(num_models, num_parameters)``.
        """
        shapes = ((self.num_parameters,), (num_models, self.num_parameters))
        if start.shape not in shapes:
            raise ValueError(
                f"a stack of {num_models} models starts from weights of shape {shapes[0]} or {shapes[1]}, "
                f"got {tuple(start.shape)}"
            )
        if len(self._room) < num_models:
            self._room = self._room.new_empty(shapes[1])
            self._opened.clear()
        self.rows = self._room[:num_models]
        self.rows.copy_(start)

    def open(self, first: int, last: int) -> None:
        """Put the window on the rows from ``first`` to before ``last``."""
        self.vector = self.rows[first:last]
        if (first, last) not in self._opened:
            if len(self._opened) == KEPT_WINDOWS:
                self._opened.clear()
            self._opened[first, last] = self._leaves()
        self.weights = self._opened[first, last]
        if len(self._gradients) < last - first:
            self._gradients = torch.empty_like(self.vector)
        self.gradient = self._gradients[: last - first]
        self.parameter = nn.Parameter(self.vector)
        self.parameter.grad = self.gradient

    def keep_first(self, num_models: int) -> None:
        """Narrow the window to its first models. The optimiser's parameter stays the same object."""
        self.vector = self.vector[:num_models]
        self.gradient = self.gradient[:num_models]
        self.weights = self._leaves()
        self.parameter.grad = None
        self.parameter.data = self.vector
        self.parameter.grad = self.gradient

    def backward(self, losses: Tensor) -> None:
        """Overwrite the gradient, given each model's loss: a model's row has a gradient from its own alone."""
        gradients = torch.autograd.grad(losses.sum(), self.weights, materialize_grads=True)
        torch.cat([each.reshape(len(losses), -1) for each in gradients], dim=1, out=self.gradient)

    def _leaves(self) -> list[Tensor]:
        pieces = zip(pairwise(self._ends), self._shapes, strict=True)
        views = [self.vector[:, a:b].view(len(self.vector), *shape) for (a, b), shape in pieces]
        return [view.detach().requires_grad_() for view in views]
