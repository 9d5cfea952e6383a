"""Where the layers of a model lie in its flat vector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from torch import Tensor, nn


@dataclass(frozen=True)
class Place:
    """Where one parameter lies in a flat vector.

    Attributes
    ----------
    start, stop : int
    shape : tuple[int, ...]
        The parameter's own.
    """

    start: int
    stop: int
    shape: tuple[int, ...]


class Layout(Mapping[str, Place]):
    """Parameter's name, such as ``"0.weight"``, → its place, in the order of the flat vector.

    The names and the order are those of ``module.named_parameters()``, as :class:`~fedunlearn.models.flat.FlatModel`
    has them.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._places: dict[str, Place] = {}
        at = 0
        for name, shape in shapes.items():
            self._places[name] = Place(at, at + prod(shape), tuple(shape))
            at += prod(shape)
        self.num_parameters = at

    @classmethod
    def of(cls, module: nn.Module) -> Layout:
        """Return the layout of a module's flat vector."""
        return cls({name: tuple(parameter.shape) for name, parameter in module.named_parameters()})

    def __getitem__(self, name: str) -> Place:
        return self._places[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def view(self, vector: Tensor, name: str) -> Tensor:
        """Return a parameter's part of a flat vector, in the parameter's shape; it shares the vector's memory.

        Raises
        ------
        ValueError
            The vector is not of this layout.
        """
        if tuple(vector.shape) != (self.num_parameters,):
            raise ValueError(
                f"a vector of shape {tuple(vector.shape)} is not of this layout, which has {self.num_parameters} "
                "parameters"
            )
        place = self._places[name]
        return vector[place.start : place.stop].view(place.shape)
