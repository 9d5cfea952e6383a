"""Centralised unlearning methods: on pooled data as their papers have it, or as the clients' local routines.

A method is one file here, and a line in ``_FILES``; or an object of another package, named by an entry point of the
group ``fedunlearn.routines``. See :mod:`fedunlearn.unlearning.contract` for what it is, and docs/unlearning.md for
the list with papers, formulas, defaults and costs. Nothing here knows that a federation exists.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points

from fedunlearn.errors import ConfigError, UserError
from fedunlearn.unlearning.contract import PLAIN as PLAIN
from fedunlearn.unlearning.contract import Conditions as Conditions
from fedunlearn.unlearning.contract import Examples as Examples
from fedunlearn.unlearning.contract import Method as Method
from fedunlearn.unlearning.contract import Passes as Passes
from fedunlearn.unlearning.contract import Report as Report

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


@cache
def methods() -> dict[str, Method]:
    """Return all methods by name: ours in the order of the docs, then those of other packages.

    Raises
    ------
    UserError
        An entry point cannot be loaded, is no method, or takes a name that is taken.
    """
    found = {}
    for file in _FILES:
        method: Method = importlib.import_module(f"{__name__}.{file}").METHOD
        found[method.name] = method
    for point in entry_points(group=GROUP):
        try:
            other = point.load()
        except Exception as error:
            raise UserError(f"routine {point.name!r} ({point.value}): cannot be loaded: {error}") from error
        if not isinstance(other, Method):
            raise UserError(f"routine {point.name!r} ({point.value}): is no fedunlearn.unlearning.Method")
        if other.name in found:
            raise UserError(f"routine {point.name!r} ({point.value}): there is a {other.name!r} already")
        found[other.name] = other
    return found


def method(name: str) -> Method:
    """Return a method by its name.

    Raises
    ------
    ConfigError
        There is none of that name.
    """
    if name not in methods():
        raise ConfigError(f"routine = {name!r}: must be one of {', '.join(methods())}")
    return methods()[name]
