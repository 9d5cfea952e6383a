"""A strategy with something to keep: server momentum, in the simplest form that goes wrong if it is lost."""

from dataclasses import dataclass

import torch

from fedunlearn.config.conditions import Fraction
from fedunlearn.config.settings import Settings
from fedunlearn.server.plan import RoundPlan
from fedunlearn.strategies.base import UnlearningStrategy


@dataclass(frozen=True)
class MomentumSettings(Settings):
    """How much of the last step the next one keeps."""

    beta: Fraction = 0.6


class ServerMomentum(UnlearningStrategy):
    """Federated averaging with momentum on the server; it forgets by a negated update."""

    settings_type = MomentumSettings
    velocity = None
    steps = 0

    def plan(self, situation):
        if not situation.to_forget:
            return situation.fedavg()
        return RoundPlan(situation.round, (), situation.to_forget)

    def combine(self, round):
        step = round.fedavg() - round.w
        for c in round.forgetting:
            step = step - 2 * c.delta
        last = torch.zeros_like(step) if self.velocity is None else self.velocity
        self.velocity = self.method.beta * last + step
        self.steps += 1
        return round.w + self.velocity

    def coefficients(self, round):
        return {c.client: 2.0 for c in round.forgetting}

    def state(self):
        return {} if self.velocity is None else {"velocity": self.velocity, "steps": self.steps}

    def load_state(self, state):
        self.velocity, self.steps = state.get("velocity"), state.get("steps", 0)
