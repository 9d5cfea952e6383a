"""A strategy whose unlearning takes three rounds, and that keeps something between them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from fedunlearn.config.settings import Settings
from fedunlearn.server.plan import RoundPlan
from fedunlearn.strategies.base import UnlearningStrategy
from tests.server.tiny import examples_of, update_of


@dataclass(frozen=True)
class ThreeRoundsSettings(Settings):
    """How many rounds an unlearning takes, and whether the clients to forget take part in them."""

    rounds: int = 3
    asks: bool = True


class ThreeRounds(UnlearningStrategy):
    """In step s the forgotten clients' mean update is subtracted s + 1 times, with a drift that never stops."""

    settings_type = ThreeRoundsSettings
    drift = None
    counted = 0

    def plan(self, situation):
        if not situation.to_forget:
            return situation.fedavg()
        completes = situation.step == self.method.rounds - 1
        train = situation.sample(max(situation.slots - 1, 0))
        plan = RoundPlan(situation.round, train, situation.to_forget, completes=completes)
        return replace(plan, asks=self.method.asks)

    def combine(self, round):
        step = round.fedavg() - round.w
        if round.forgets:
            total = sum(c.num_examples for c in round.forgetting)
            for c in round.forgetting:
                step = step - (round.plan.step + 1) * c.num_examples / total * c.delta
        last = torch.zeros_like(step) if self.drift is None else self.drift
        self.drift = 0.5 * last + step
        self.counted += 1
        return round.w + self.drift

    def state(self):
        return {} if self.drift is None else {"drift": self.drift, "counted": self.counted}

    def load_state(self, state):
        self.drift, self.counted = state.get("drift"), state.get("counted", 0)


def by_hand(start, story):
    """Return weights, drift and count after each round, in float64, without any of the program.

    Parameters
    ----------
    start
        The initial weights.
    story
        A round each: (clients that train, clients to forget, step). None: the round leaves everything as it was; a
        number: it leaves everything as it was after that round.
    """
    states = [(start.double(), torch.zeros_like(start, dtype=torch.float64), 0)]
    for t, told in enumerate(story, 1):
        if told is None or isinstance(told, int):
            states.append(states[t - 1 if told is None else told])
            continue
        (train, forget, step), (w, drift, counted) = told, states[-1]
        deltas = {k: update_of(w, t, k) for k in (*train, *forget)}
        moved = sum(examples_of(k) * deltas[k] for k in train) / sum(map(examples_of, train))
        if forget:
            mean = sum(examples_of(k) * deltas[k] for k in forget) / sum(map(examples_of, forget))
            moved = moved - (step + 1) * mean
        drift = 0.5 * drift + moved
        states.append((w + drift, drift, counted + 1))
    return states
