"""Centralised unlearning methods: on pooled data as their papers have it, or as the clients' local routines.

A method is one file here, and a line in ``_FILES``; or an object of another package, named by an entry point of the
group ``fedunlearn.routines``. See :mod:`fedunlearn.unlearning.contract` for what it is, and docs/unlearning.md for
the list with papers, formulas, defaults and costs. Nothing here knows that a federation exists.
"""

from __future__ import annotations

import difflib
import importlib
from functools import cache
from importlib.metadata import entry_points
from typing import NamedTuple

from fedunlearn.errors import ConfigError
from fedunlearn.unlearning.contract import PLAIN as PLAIN
from fedunlearn.unlearning.contract import Conditions as Conditions
from fedunlearn.unlearning.contract import Examples as Examples
from fedunlearn.unlearning.contract import Method as Method
from fedunlearn.unlearning.contract import Passes as Passes
from fedunlearn.unlearning.contract import Report as Report
from fedunlearn.unlearning.needs import Needs as Needs

GROUP = "fedunlearn.routines"
_FILES = (
    "fine_tune",
    "gradient_ascent",
    "neggrad_plus",
    "gda",
    "random_label",
    "l1_sparse",
    "salun",
    "scrub",
    "bad_teacher",
    "boundary_shrink",
    "boundary_expand",
    "ssd",
    "fisher_noise",
    "fedquit",
    "fedunran",
    "trw",
    "mpru",
    "prune_then_unlearn",
)


class Discovered(NamedTuple):
    """What there is.

    Attributes
    ----------
    methods : dict of str to Method
        Ours in the order of the docs, then those of other packages.
    modules : dict of str to str
        By the name of another package's method: the module that its entry point names.
    broken : dict of str to str
        By the name of an entry point that gives no method: why. Whoever does not ask for it need not know.
    """

    methods: dict[str, Method]
    modules: dict[str, str]
    broken: dict[str, str]


@cache
def discover() -> Discovered:
    """Find all methods."""
    found = Discovered({}, {}, {})
    for file in _FILES:
        ours: Method = importlib.import_module(f"{__name__}.{file}").METHOD
        found.methods[ours.name] = ours
    for point in entry_points(group=GROUP):
        try:
            other = point.load()
        except Exception as error:
            words = " ".join(str(error).split()) or "no reason given"
            found.broken[point.name] = f"{point.value} cannot be loaded: {type(error).__name__}: {words}"
            continue
        if not isinstance(other, Method):
            found.broken[point.name] = f"{point.value} is no fedunlearn.unlearning.Method"
        elif other.name in found.methods:
            found.broken[point.name] = f"{point.value}: there is a {other.name!r} already"
        else:
            found.methods[other.name] = other
            found.modules[other.name] = point.value.partition(":")[0].strip()
    return found


def methods() -> dict[str, Method]:
    """Return all methods by name: ours in the order of the docs, then those of other packages."""
    return discover().methods


def method(name: str) -> Method:
    """Return a method by its name.

    Raises
    ------
    ConfigError
        There is none of that name, or what another package provides under it is broken.
    """
    if not isinstance(name, str):
        raise ConfigError(f"routine = {name!r}: must be a name, such as 'salun'")
    if name in methods():
        return methods()[name]
    broken = discover().broken
    if name in broken:
        raise ConfigError(f"routine = {name!r}: is broken: {broken[name]}")
    # A package may have given its entry point another name than its method.
    others = "".join(f"; {point!r} is broken: {why}" for point, why in broken.items())
    close = difflib.get_close_matches(name, methods(), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ConfigError(f"routine = {name!r}: must be one of {', '.join(methods())}{hint}{others}")
