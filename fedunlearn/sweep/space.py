"""The settings that a sweep tries for one method: all combinations, or as many as are drawn."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fedunlearn.config.toml_text import inline
from fedunlearn.config.toml_tree import Origin, read_setting
from fedunlearn.randomness import numpy_generator

Dimensions = Mapping[str, "Choice | Range"]
"""Dotted key of a ``[[method]]`` entry → what is tried there."""

DRAWS_PER_TRIAL = 100
"""After so many draws that were all there already, nothing new is to be found."""


@dataclass(frozen=True)
class Choice:
    """``[5, 10, 20]``: one of these, each as likely as the others."""

    values: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """All of them."""
        return self.values

    def at(self, u: float) -> Any:
        """Return the value at a place, 0 ≤ u < 1."""
        return self.values[int(u * len(self.values))]


@dataclass(frozen=True)
class Range:
    """``{low = 1e-4, high = 0.1, log = true}``: any number in between; a whole one where both ends are."""

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> tuple[float, ...]:
        """The least and the greatest."""
        return self.low, self.high

    def at(self, u: float) -> float:
        """Return the number at a place, 0 ≤ u < 1: three significant digits, or a whole number."""
        low, high = (self.low, self.high + 1) if self.whole else (self.low, self.high)
        value = low * (high / low) ** u if self.log else low + u * (high - low)
        if self.whole:
            return min(int(value), int(self.high))
        return min(max(float(f"{value:.3g}"), float(self.low)), float(self.high))


def read_space(table: Mapping[str, Any], path: str, origin: Origin) -> dict[str, Choice | Range]:
    """Read what one method's table of a sweep file says, ``settings.lr`` and the like.

    Raises
    ------
    ConfigError
        With one line that names the key.
    """
    found: dict[str, Choice | Range] = {}
    for key, value in table.items():
        where = f"{path}.{key}"
        if isinstance(value, list):
            found[key] = _choice(value, where, origin)
        elif isinstance(value, Mapping) and "low" in value and "high" in value:
            found[key] = _range(value, where, origin)
        elif isinstance(value, Mapping):
            inner = read_space(value, where, origin)
            found |= {f"{key}.{name}": dimension for name, dimension in inner.items()}
        else:
            raise origin.error(
                where,
                value,
                "must be a list of values, or {low = …, high = …}; log = true draws powers evenly",
            )
    return found


def _choice(values: list[Any], where: str, origin: Origin) -> Choice:
    if not values:
        raise origin.error(where, values, "must not be empty")
    if len({inline(value) for value in values}) < len(values):
        raise origin.error(where, values, "must not repeat an entry")
    return Choice(tuple(values))


def _range(table: Mapping[str, Any], where: str, origin: Origin) -> Range:
    for key, value in table.items():
        if key not in ("low", "high", "log"):
            raise origin.error(f"{where}.{key}", value, "unknown key; a range takes low, high, log")
        if key == "log" and type(value) is not bool:
            raise origin.error(f"{where}.log", value, "must be true or false")
        if key != "log" and (type(value) not in (int, float) or not math.isfinite(value)):
            raise origin.error(f"{where}.{key}", value, "must be a finite number")
    low, high, log = table["low"], table["high"], table.get("log", False)
    if low >= high:
        raise origin.error(f"{where}.high", high, f"must be > low = {low}")
    if log and low <= 0:
        raise origin.error(f"{where}.low", low, "must be > 0 with log = true")
    return Range(low, high, log)


def check_space(space: Dimensions, tree: Any, path: str, origin: Origin) -> None:
    """Refuse a dimension that could draw a value which the table that ``tree`` was read from does not take.

    Conditions on single values are bounds, so that what lies between two that hold holds as well.

    Raises
    ------
    ConfigError
        With one line that names the key, the value and what would be right.
    """
    for key, dimension in space.items():
        for value in dimension.ends:
            read_setting(tree, key, value, path, origin)


def grid(space: Dimensions) -> Iterator[dict[str, Any]]:
    """Yield every combination; all dimensions are choices."""
    names = list(space)
    lists = [dimension.values for dimension in space.values() if isinstance(dimension, Choice)]
    for values in itertools.product(*lists):
        yield dict(zip(names, values, strict=True))


def drawn(space: Dimensions, label: str, *, seed: int, trials: int) -> Iterator[dict[str, Any]]:
    """Yield up to ``trials`` different combinations, drawn evenly: the first few are the same for more of them.

    A method's draws have an address of their own, so that no other method of the sweep changes them.
    """
    generator = numpy_generator(seed, f"sweep/{label}")
    seen: set[str] = set()
    for _ in range(DRAWS_PER_TRIAL * trials):
        if len(seen) == trials:
            return
        settings = {name: dimension.at(generator.random()) for name, dimension in space.items()}
        key = json.dumps(settings, sort_keys=True)
        if key not in seen:
            seen.add(key)
            yield settings
