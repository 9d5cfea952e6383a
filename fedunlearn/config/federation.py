"""``[federation]``: who takes part in a round, who has to, and how their updates become one step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from fedunlearn.config.conditions import ClientCount, Seconds, Share, at_least, below

ROUND_TIMEOUT = 600.0
"""Seconds, unless an experiment says otherwise."""

LIVE_QUORUM = 0.5
"""Of a live federation, unless it says otherwise: one client that fails, or is refused, must not stop the others."""


def slots_of(num_clients: int, participation: float) -> int:
    """Return how many clients a round asks: their share of all, at least one."""
    return max(1, round(participation * num_clients))


@dataclass(frozen=True, kw_only=True)
class FederationConfig:
    """``[federation]``: how many clients there are, and how many of them a round needs."""

    num_clients: ClientCount = 10  # 1: pooled data, as centralised unlearning has them
    participation: Share = 1.0  # share of all clients that a round asks
    # Share of a round's clients that must answer; None: all of them, or LIVE_QUORUM, see Experiment.
    given_quorum: Share | None = field(default=None, metadata={"key": "quorum"})
    # How the updates of a round become one step; see ``fedunlearn.federation.robust``.
    aggregation: Literal["mean", "trimmed-mean", "median", "krum", "multi-krum"] = "mean"
    hostile_share: Annotated[float, at_least(0), below(0.5)] = (
        0.2  # of a round's answers, for all but the mean
    )
    # Seconds after which a client that has not answered has failed; None: ROUND_TIMEOUT. Of deployments.
    given_round_timeout: Seconds | None = field(default=None, metadata={"key": "round-timeout"})

    @property
    def quorum(self) -> float:
        """Share of a round's clients that must answer."""
        return 1.0 if self.given_quorum is None else self.given_quorum

    @property
    def round_timeout(self) -> float:
        """Seconds after which a client that has not answered has failed, where clients can be lost."""
        return ROUND_TIMEOUT if self.given_round_timeout is None else self.given_round_timeout

    def too_few(self, clients: int) -> str:
        """Say that so many who train in a round are too few for the rule, to tell f hostile ones from the others.

        Returns
        -------
        str
            What it needs, and for what; empty where they are enough.
        """
        if self.aggregation == "mean":
            return ""
        hostile = math.ceil(self.hostile_share * clients - 1e-9)
        krum = self.aggregation in ("krum", "multi-krum")
        needed = 3 if self.aggregation == "median" else max(3, 2 * hostile + (3 if krum else 1))
        told = f" to withstand {hostile}" if self.aggregation != "median" else ""
        return f"needs at least {needed} clients in a round{told}" if clients < needed else ""

    @property
    def slots(self) -> int:
        """Clients per round."""
        return slots_of(self.num_clients, self.participation)
