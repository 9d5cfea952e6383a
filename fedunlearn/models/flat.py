"""A model as one flat vector: what the wire carries, what strategies add up, what the optimiser steps on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn

from fedunlearn.errors import UserError
from fedunlearn.models.draws import draws_at_random


class FlatModel:
    """A module whose parameters and gradients are views into two flat vectors.

    Loading weights, taking a pseudo-gradient, clearing gradients and an optimiser step are then one operation
    each, whatever the number of layers. Every operation on them is element-wise, so the numbers are those of
    the per-tensor loop. (A layer's own product may differ in its last bit from that of a module outside: the
    weights start at another alignment in memory, which some BLAS routines look at, for one row above all.)

    Parameters
    ----------
    module
        The architecture. It is moved to ``device`` and ``dtype`` and changed in place.
    dtype, device
        Where the vectors live. Floating-point buffers follow; integer buffers keep their type.

    Attributes
    ----------
    parameters : list of nn.Parameter
        The module's, each a view into ``vector``.
    pieces : list of Tensor
        ``vector`` cut into them, each flat.
    vector : Tensor
        All parameters in ``module.parameters()`` order, shape ``(num_parameters,)``.
    gradient : Tensor
        Their accumulated gradients, same shape.
    parameter : nn.Parameter
        ``vector`` and ``gradient`` as the one parameter an optimiser needs to see.
    forward : callable
        What training calls with images to get logits: the module itself, unless
        :func:`fedunlearn.training.accelerate` put a faster way to compute it in its place.
    autocast : torch.dtype or None
        The lower precision that ``forward`` computes in, if it does.
    accelerate : callable or None
        Does to a copy what was done to ``forward``.
    draws : bool or None
        Whether it draws at random while it trains, such as for dropout; see :mod:`fedunlearn.models.draws`.

    Raises
    ------
    UserError
        It is no module; or one without parameters, or with one that does not require a gradient: all that is in the
        vector moves.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        _check(module)
        self.module = module.to(device=device, dtype=dtype)
        parameters = list(module.parameters())
        self.parameters = parameters
        self.vector = torch.cat([p.detach().reshape(-1) for p in parameters])
        self.gradient = torch.zeros_like(self.vector)
        self.parameter = nn.Parameter(self.vector)
        self.parameter.grad = self.gradient
        self.pieces = list(torch.split(self.vector, [p.numel() for p in parameters]))
        self._views: list[Tensor] = []  # of the gradient, a parameter's each
        gradients = torch.split(self.gradient, [p.numel() for p in parameters])
        for p, w, g in zip(parameters, self.pieces, gradients, strict=True):
            p.data = w.view(p.shape)
            p.grad = g.view(p.shape)
            self._views.append(p.grad)
        self._dropped = False
        self._buffers = dict(module.named_buffers())
        self.forward: Callable[[Tensor], Tensor] = self.module
        self.autocast: torch.dtype | None = None
        self.accelerate: Callable[[FlatModel], None] | None = None
        self.draws = draws_at_random(module)

    @property
    def num_parameters(self) -> int:
        """Number of scalar parameters."""
        return self.vector.numel()

    def copy(self) -> FlatModel:
        """Return a model of the same architecture, weights, buffers, mode and acceleration; memory is not shared."""
        model = FlatModel(deepcopy(self.module), dtype=self.vector.dtype, device=self.vector.device)
        if self.accelerate is not None:
            self.accelerate(model)
        return model

    def buffers(self) -> dict[str, Tensor]:
        """Return copies of the module's buffers (BatchNorm statistics, counters) by name."""
        return {name: buffer.clone() for name, buffer in self._buffers.items()}

    def load(self, vector: Tensor, buffers: Mapping[str, Tensor] | None = None) -> None:
        """Overwrite the parameters, and the buffers when given.

        Raises
        ------
        ValueError
            If the vector's shape or a buffer's name or shape is not this model's.
        """
        if vector.shape != self.vector.shape:
            raise ValueError(
                f"this model has {self.num_parameters} parameters, got a vector of {tuple(vector.shape)}"
            )
        buffers = buffers or {}
        if buffers and buffers.keys() != self._buffers.keys():
            raise ValueError(f"this model has buffers {sorted(self._buffers)}, got {sorted(buffers)}")
        with torch.no_grad():
            self.vector.copy_(vector)
            for name, value in buffers.items():
                self._buffers[name].copy_(value)

    def zero_grad(self) -> None:
        """Clear the gradients. They stay allocated: backward adds into the flat vector in place."""
        if self._dropped:
            for p, view in zip(self.parameters, self._views, strict=True):
                p.grad = view
            self._dropped = False
        self.gradient.zero_()

    def drop_grad(self) -> None:
        """Clear the gradients by letting go of them: backward leaves each parameter's own in its ``grad``.

        For a large model that is two passes over its memory less than clearing and adding. ``gradient`` means
        nothing until :meth:`zero_grad` is called.
        """
        for p in self.parameters:
            p.grad = None
        self._dropped = True


def _check(module: object) -> None:
    kind = type(module).__name__
    if not isinstance(module, nn.Module):
        raise UserError(f"the model is a {kind}, and must be a torch.nn.Module")
    named = dict(module.named_parameters())
    if not named:
        raise UserError(f"the model ({kind}) has no parameters; there is nothing to train")
    for name, parameter in named.items():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise UserError(f"the model ({kind}): {name!r} has no shape yet; run the model on an image first")
    held = [name for name, parameter in named.items() if not parameter.requires_grad]
    if held:
        raise UserError(
            f"the model ({kind}): {len(held)} of its {len(named)} parameters require no gradient, such as "
            f"{held[0]!r}, but all weights of a model are averaged, negated and unlearned together; call "
            "requires_grad_(True) on all of them, or make the frozen ones buffers"
        )
