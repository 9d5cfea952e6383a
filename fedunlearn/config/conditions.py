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


def both(one: Must, other: Must) -> Must:
    """Two bounds that a refusal names together."""
    return Must(
        lambda value: one.holds(value) and other.holds(value),
        f"{one.text} and {other.text.removeprefix('must be ')}",
    )


def _written(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def matching(pattern: str, text: str) -> Must:
    """Strings that match the whole pattern."""
    return Must(lambda value: re.fullmatch(pattern, value) is not None, text)


not_empty = Must(lambda values: len(values) > 0, "must not be empty")
distinct = Must(lambda values: len(set(values)) == len(values), "must not repeat an entry")

LARGEST = 2**31 - 1
"""Nobody has more of anything than this."""
LONGEST = 1e9
"""Seconds, 31 years: what counts them elsewhere overflows far beyond that."""
LARGEST_RATE = 3.4e38
"""Beyond it a float32 is infinite."""

no_nul = Must(lambda text: "\0" not in text, "must be a path, which holds no NUL")

Count = Annotated[int, at_least(1), at_most(LARGEST)]
ClientCount = Annotated[int, at_least(1), at_most(1_000_000)]
Pixels = Annotated[int, at_least(1), at_most(8192)]
"""Height or width of an image that a model is shown."""
Share = Annotated[float, above(0), at_most(1)]
Name = Annotated[
    str,
    matching(r"[A-Za-z0-9._+-]*", "may contain only letters, digits and . _ + -, as it names files"),
    matching(r"[A-Za-z0-9].*", "must begin with a letter or a digit, as it names files"),
    Must(lambda name: len(name) <= 100, "must be at most 100 characters, as it names files"),
]
Number = Annotated[int, at_least(0), at_most(LARGEST)]
"""Of a client, a class or a row, counted from 0."""
PathText = Annotated[str, not_empty, no_nul]
"""A path as it stands in a file; ``~`` is expanded where it is used."""
Seconds = Annotated[float, above(0), at_most(LONGEST)]
CountOrZero = Annotated[int, at_least(0), at_most(LARGEST)]
Rate = Annotated[float, above(0), at_most(LARGEST_RATE)]
"""A learning rate, a temperature: 0 has no meaning."""
NonNegative = Annotated[float, at_least(0), at_most(LARGEST_RATE)]
"""Of a term in a loss, or a decay: 0 leaves it out."""
Momentum = Annotated[float, both(at_least(0), below(1))]
Fraction = Annotated[float, both(at_least(0), at_most(1))]
