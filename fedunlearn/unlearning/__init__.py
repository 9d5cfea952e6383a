"""Centralised unlearning methods: on pooled data as their papers have it, or as the clients' local routines.

A method is one file here, and a line in :mod:`fedunlearn.plugins`; or an object of another package, see there. What
it is, :mod:`fedunlearn.unlearning.contract` says, and docs/unlearning.md has the list with papers, formulas, defaults
and costs. Nothing here knows that a federation exists.
"""

from __future__ import annotations

from fedunlearn import plugins
from fedunlearn.errors import ConfigError
from fedunlearn.unlearning.contract import PLAIN as PLAIN
from fedunlearn.unlearning.contract import Conditions as Conditions
from fedunlearn.unlearning.contract import Examples as Examples
from fedunlearn.unlearning.contract import Method as Method
from fedunlearn.unlearning.contract import Passes as Passes
from fedunlearn.unlearning.contract import Report as Report
from fedunlearn.unlearning.needs import Needs as Needs


def methods() -> dict[str, Method]:
    """Return all methods but broken ones, by name: ours in the order of the docs, then those of other packages."""
    broken = plugins.broken("routines")
    return {name: method(name) for name in plugins.names("routines") if name not in broken}


def method(name: str) -> Method:
    """Return a method by its name.

    Raises
    ------
    ConfigError
        There is none of that name, or what another package provides under it is broken.
    """
    try:
        found: Method = plugins.find("routines", name)
    except ConfigError as error:
        raise ConfigError(f"routine = {name!r}: {error}") from error
    return found
