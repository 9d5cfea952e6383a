"""An architecture without weights of its own, to be run with weights from elsewhere."""

import copy
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor, nn


class Slot(NamedTuple):
    """Where an architecture looks for one of its weights."""

    layer: nn.Module
    name: str
    parameter: int
    """Its number in ``parameters()`` of the original."""


def hollow(module: nn.Module) -> tuple[nn.Module, list[Slot]]:
    """Return a copy of a module, in training mode, whose weights are left to be set, and where.

    (``torch.func.functional_call`` does the like on the module itself, and of one with a layer under two names
    leaves a tensor behind that is no parameter any more.)
    """
    blanks = [nn.Parameter(p.new_empty(0)) for p in module.parameters()]
    number = {id(blank): i for i, blank in enumerate(blanks)}
    memo: dict[int, object] = {id(p): blank for p, blank in zip(module.parameters(), blanks, strict=True)}
    twin = copy.deepcopy(module, memo).train()
    slots = []
    for layer in twin.modules():
        for name, blank in list(layer.named_parameters(recurse=False, remove_duplicate=False)):
            slots.append(Slot(layer, name, number[id(blank)]))
            delattr(layer, name)
            setattr(layer, name, None)
    return twin, slots


def fill(slots: Iterable[Slot], weights: Sequence[Tensor]) -> None:
    """Set the weights, given in the order of the original's ``parameters()``."""
    for layer, name, parameter in slots:
        setattr(layer, name, weights[parameter])
