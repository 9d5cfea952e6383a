"""Retraining from scratch: federated averaging that never sees what was forgotten. The oracle of every claim.

Oracle(e, t) is this strategy from the original's initial weights, with the same schedule, sampling rule and
learning rates, without the clients of requests 1…e, after t rounds.
"""

from collections.abc import Iterable
from typing import Any

from fedunlearn.errors import ConfigError
from fedunlearn.server.plan import RoundPlan, Situation
from fedunlearn.strategies.base import UnlearningStrategy


class Retrain(UnlearningStrategy):
    """Federated averaging without ``excluded`` from the first round on.

    Parameters
    ----------
    excluded
        Clients that are never sampled, and parts of clients' data that are never trained on. Without any, this is the
        original federation.

    Raises
    ------
    ConfigError
        There is no such client or part.
    """

    def __init__(self, *args: Any, excluded: Iterable[int] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.excluded = frozenset(excluded)
        if unknown := sorted(k for k in self.excluded if not self.docket.knows(k)):
            last = self.settings.num_clients - 1
            raise ConfigError(f"excluded: there is no client {unknown[0]}; clients are numbered 0 to {last}")

    def plan(self, situation: Situation) -> RoundPlan:
        """Sample as ever, from the clients that are not excluded."""
        return RoundPlan(situation.round, situation.sample(situation.slots, also_without=self.excluded))
