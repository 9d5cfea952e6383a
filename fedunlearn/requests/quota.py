"""How many requests one actor may have: open at a time, and such that came to nothing within a day.

Whoever asks for the same again and again, or asks and withdraws, would otherwise make work without end for the server
and its trail. Asking again under the same idempotency key is no new request and counts for nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedunlearn.errors import UserError
from fedunlearn.requests.store import Store
from fedunlearn.requests.transitions import ENDS, OPEN

DAY = 86400.0
"""Seconds for which a request that came to nothing counts."""
_UNLEARNED = frozenset({"forgotten", "forgotten-unrecovered", "superseded"})
_OPEN = tuple(sorted(OPEN))
_NOTHING = tuple(sorted(ENDS - _UNLEARNED))
_SOON = 60.0  # seconds after which it is worth looking whether an open request has ended


class TooManyRequestsError(UserError):
    """The actor has as many requests as one may have. Nothing was recorded.

    Attributes
    ----------
    retry_after : int
        Seconds after which it is worth asking again.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = max(1, math.ceil(retry_after))


@dataclass(frozen=True)
class Quota:
    """How much one actor may ask for.

    Attributes
    ----------
    open : int
        Requests that have not ended, at a time.
    nothing : int
        Requests made within a day that have ended with nothing unlearned: duplicates, withdrawn, refused ones.
    """

    open: int
    nothing: int


OF_CLIENT = Quota(open=32, nothing=32)
OF_OPERATOR = Quota(open=1024, nothing=256)
"""Who may ask for anyone asks for many; and names those who are to be forgotten together in one request."""


def check(store: Store, branch: str, actor: str, now: float, same: str | None) -> None:
    """Raise unless the actor may make one more request; inside the caller's transaction.

    Counts no further than the quota, so that it costs the same however many requests there have been.

    Parameters
    ----------
    now
        Unix seconds.
    same
        An open request that names already all that is asked for, if there is one.

    Raises
    ------
    TooManyRequestsError
        The message says what would be right.
    """
    quota = OF_CLIENT if actor.startswith("client:") else OF_OPERATOR
    if _count(store, branch, actor, _OPEN, 0.0, quota.open) >= quota.open:
        remedy = f"{same} already names all of this; " if same is not None else ""
        raise TooManyRequestsError(
            f"{actor} has {quota.open} open requests, the maximum: {remedy}ask again once one of them has ended, or "
            "withdraw one",
            _SOON,
        )
    since = now - DAY
    if _count(store, branch, actor, _NOTHING, since, quota.nothing) >= quota.nothing:
        wait = max(1.0, _oldest(store, branch, actor, _NOTHING, since) + DAY - now)
        raise TooManyRequestsError(
            f"{actor} has made {quota.nothing} requests within a day that had no effect (duplicates, withdrawn or "
            f"refused ones), the maximum: ask again in {math.ceil(wait / 60)} min",
            wait,
        )


def _count(store: Store, branch: str, actor: str, states: tuple[str, ...], since: float, enough: int) -> int:
    (row,) = store.rows(
        "SELECT count(*) AS number FROM (SELECT 1 FROM requests INDEXED BY requests_by_actor "
        f"WHERE branch = ? AND actor = ? AND state IN ({', '.join('?' * len(states))}) AND arrived_at > ? LIMIT ?)",
        *(branch, actor, *states, since, enough),
    )
    return int(row["number"])


def _oldest(store: Store, branch: str, actor: str, states: tuple[str, ...], since: float) -> float:
    """Return when the first of these requests was made: until it is a day old, none counts for less."""
    found = [
        row["arrived_at"]
        for state in states
        for row in store.rows(
            "SELECT arrived_at FROM requests INDEXED BY requests_by_actor "
            "WHERE branch = ? AND actor = ? AND state = ? AND arrived_at > ? ORDER BY arrived_at LIMIT 1",
            *(branch, actor, state, since),
        )
    ]
    return float(min(found))
