"""The life of a forget request as one table: what is not in it cannot happen.

::

    received ──► scheduled ──► unlearning ──► recovering ──► forgotten
        │          ▲  │            │               ├───────► forgotten-unrecovered
        └► waiting ┘◄─┴────────────┘               └───────► superseded

``duplicate``, ``withdrawn``, ``refused``, ``excluded`` and ``failed`` end a life early, with nothing unlearned. An
unlearning of several rounds enters ``unlearning`` in each of them.
"""

from collections import deque
from collections.abc import Mapping
from types import MappingProxyType

from fedunlearn.errors import RunError, UserError

INITIAL = "received"

_TABLE: dict[str, tuple[str, ...]] = {
    "received": ("scheduled", "waiting", "duplicate", "withdrawn", "refused", "excluded", "failed"),
    # A client that must forget is offline or failed: the whole concurrent set stays here for a later round.
    "waiting": ("scheduled", "duplicate", "withdrawn", "refused", "excluded", "failed"),
    # Named in a committed plan. Not to be withdrawn any more: a plan is executed as committed, after a crash
    # too, so a withdrawal accepted here would be acknowledged and then not honoured.
    # "excluded": the plan of a method that only leaves clients out.
    "scheduled": ("unlearning", "waiting", "excluded", "failed"),
    # "refused": the guard rolled the step back. "waiting": a client of the set failed, nothing was applied.
    # "excluded": its clients have none of the data that it names; nothing was there to apply.
    # "unlearning": a further round of it, where it takes several.
    "unlearning": ("recovering", "unlearning", "waiting", "refused", "excluded", "failed"),
    # Applied to the weights. Its ends are its own, so that an end alone tells whether anything was unlearned;
    # a run that breaks off meanwhile leaves the request here, to be resumed.
    "recovering": ("forgotten", "forgotten-unrecovered", "superseded"),
    "forgotten": (),
    "forgotten-unrecovered": (),  # the cap on recovery rounds was reached
    "superseded": (),  # unlearned; a later request took over the recovery target
    "duplicate": (),
    "withdrawn": (),
    "refused": (),  # by the guard, for the last client, or for lack of a right
    "excluded": (),  # only left out from now on, nothing negated: not called forgotten
    "failed": (),  # given up before anything was applied
}

STATES: tuple[str, ...] = tuple(_TABLE)
TRANSITIONS: Mapping[str, frozenset[str]] = MappingProxyType({a: frozenset(b) for a, b in _TABLE.items()})
ENDS: frozenset[str] = frozenset(state for state, after in _TABLE.items() if not after)
OPEN: frozenset[str] = frozenset(STATES) - ENDS


class LedgerError(RunError):
    """The ledger refuses what was asked of it, or cannot be read or written. Nothing was changed."""


class RequestConflictError(LedgerError, ValueError):
    """A request id was used again for something else."""


class UnknownRequestError(LedgerError, UserError):
    """There is no request of that id in the branch."""


def is_legal(before: str, after: str) -> bool:
    """Whether a request may go from one state to another in a single step (staying is not a step)."""
    return after in TRANSITIONS.get(before, frozenset())


def path(before: str, after: str) -> tuple[str, ...] | None:
    """Return the shortest legal way between two states.

    Parameters
    ----------
    before, after
        Members of `STATES`.

    Returns
    -------
    tuple of str or None
        The states to pass through, without `before` and with `after`; empty when they are the same;
        None when no sequence of legal steps leads there. Between ways of one length the table's order
        decides, so that a reconciliation is reproducible.
    """
    ways: dict[str, tuple[str, ...]] = {before: ()}
    queue = deque([before])
    while queue:
        here = queue.popleft()
        if here == after:
            return ways[here]
        for step in _TABLE.get(here, ()):
            if step not in ways:
                ways[step] = (*ways[here], step)
                queue.append(step)
    return None
