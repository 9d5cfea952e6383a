"""Conditions on single values, written where the value is declared: ``lr: Annotated[float, above(0)]``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Must:
    """A condition on a value, put into ``Annotated``."""

    holds: Callable[[Any], bool]
    text: str


@dataclass(frozen=True)
class Refused:
    """Names that a ``Literal`` lacks for a reason worth telling."""

    reasons: Mapping[str, str]


def above(bound: float) -> Must:
    """Values > bound."""
    return Must(lambda value: value > bound, f"must be > {_written(bound)}")


def at_least(bound: float) -> Must:
    """Values >= bound."""
    return Must(lambda value: value >= bound, f"must be >= {_written(bound)}")


def at_most(bound: float) -> Must:
    """Values <= bound."""
    return Must(lambda value: value <= bound, f"must be <= {_written(bound)}")


def below(bound: float) -> Must:
    """Values < bound."""
    return Must(lambda value: value < bound, f"must be < {_written(bound)}")


def _written(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def matching(pattern: str, text: str) -> Must:
    """Strings that match the whole pattern."""
    return Must(lambda value: re.fullmatch(pattern, value) is not None, text)


not_empty = Must(lambda values: len(values) > 0, "must not be empty")
distinct = Must(lambda values: len(set(values)) == len(values), "must not repeat an entry")

LARGEST = 2**31 - 1
"""Nobody has more of anything than this."""
LARGEST_RATE = 3.4e38
"""Beyond it a float32 is infinite."""

Count = Annotated[int, at_least(1), at_most(LARGEST)]
CountOrZero = Annotated[int, at_least(0), at_most(LARGEST)]
Rate = Annotated[float, above(0), at_most(LARGEST_RATE)]
"""A learning rate, a temperature: 0 has no meaning."""
NonNegative = Annotated[float, at_least(0), at_most(LARGEST_RATE)]
"""Of a term in a loss, or a decay: 0 leaves it out."""
Momentum = Annotated[float, at_least(0), below(1)]
Fraction = Annotated[float, at_least(0), at_most(1)]
