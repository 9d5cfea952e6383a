"""What a federation's model is made of, for methods that look below the flat vector or begin anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from torch import Tensor

from fedunlearn.errors import UserError
from fedunlearn.models.flat import FlatModel
from fedunlearn.models.layout import Layout
from fedunlearn.models.state import ModelState


def _unknown(seed: int) -> ModelState:
    raise UserError(
        "the method starts from initial weights, and the strategy was made without an architecture"
    )


@dataclass(frozen=True)
class Architecture:
    """The layout of a model's weights, and its initial weights by training seed.

    Attributes
    ----------
    make_layout : callable
        Returns the layout. Called only where a method asks.
    make_initial : callable
        Returns the weights and buffers that a training seed draws, on the federation's device. Called likewise.
    """

    make_layout: Callable[[], Layout]
    make_initial: Callable[[int], ModelState] = _unknown

    @classmethod
    def of(cls, make: Callable[[int], FlatModel]) -> Self:
        """Return the architecture of the models that ``make`` returns for a seed."""

        def initial(seed: int) -> ModelState:
            model = make(seed)
            return ModelState(model.vector.detach().clone(), model.buffers())

        return cls(lambda: Layout.of(make(0).module), initial)

    @cached_property
    def layout(self) -> Layout:
        """Where the model's parameters lie in its flat vector."""
        return self.make_layout()

    def initial(self, seed: int) -> ModelState:
        """Return the initial weights and buffers of a training seed."""
        return self.make_initial(seed)


def one_parameter(vector: Tensor) -> Architecture:
    """Return what a model is made of whose weights nobody knows the layout of."""
    return Architecture(lambda: Layout({"parameters": tuple(vector.shape)}))
