"""``[requests]``, ``[guard]`` and ``[retention]``: a live federation, which is asked to forget while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from fedunlearn.config.conditions import LONGEST, PathText, Seconds, above, at_least, at_most, below


@dataclass(frozen=True, kw_only=True)
class RequestsConfig:
    """``[requests]``: forget requests arrive live; how they are taken up, and how recovery is measured.

    The table makes a federation a live one: there are neither ``targets`` nor ``[[forget]]`` then, nor anything
    retrained to compare with.
    """

    window: Annotated[float, at_least(0), at_most(LONGEST)] = (
        0.0  # seconds a request waits for others, to be forgotten with them
    )
    during_recovery: Literal["wait", "join"] = "wait"  # what a request does while another's recovery goes on
    offline: Literal["wait", "stored", "exclude"] = "wait"  # what becomes of a client that cannot be reached
    deadline: Seconds | None = None  # seconds that "wait" waits before it excludes
    store_updates: bool = False  # keep every client's last update at the server, for offline = "stored"
    validation: Literal["server", "clients"] = "server"  # who measures the global model


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """``[guard]``: what one client's answer may do to a live federation's model at most."""

    enabled: bool = True
    max_norm: Annotated[float, above(0)] = 10.0  # of an update, in medians of the clients that train
    min_norm: Annotated[float, at_least(0), below(1)] = 0.001  # of a forgetting update, in the same
    max_examples: Annotated[float, at_least(1)] = 20.0  # in a client's first round, in medians
    max_growth: Annotated[float, at_least(1)] = 2.0  # of its examples since then
    max_drop: Annotated[float, above(0), at_most(100)] = 60.0  # points of validation quality lost in one step


@dataclass(frozen=True, kw_only=True)
class RetentionConfig:
    """``[retention]``: what becomes of earlier weights and stored updates once a request has ended."""

    earlier: Literal["purge", "quarantine", "keep"] = "purge"
    quarantine: PathText | None = None  # folder of "quarantine"; None: quarantine/ in the run directory
