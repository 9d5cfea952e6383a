"""Retraining from scratch: federated averaging that never sees what was forgotten. The oracle of every claim.

Source: the field's reference, exact unlearning.

Formula. Federated averaging as ever: w ← w + Σ_{S⁺} (n_k/N) Δ_k, and never anybody in S who is forgotten.
Oracle(e, t) is this strategy from the original's initial weights, with the same schedule, sampling rule and
learning rates, without the clients of requests 1…e, after t rounds. Without anybody ``excluded`` it is the original.
"""

from fedunlearn.server.plan import RoundPlan, Situation
from fedunlearn.strategies.base import UnlearningStrategy


class Retrain(UnlearningStrategy):
    """Federated averaging without ``excluded`` from the first round on."""

    def plan(self, situation: Situation) -> RoundPlan:
        """Sample as ever, from the clients that are not excluded."""
        return RoundPlan(situation.round, situation.sample(situation.slots, also_without=self.excluded))
