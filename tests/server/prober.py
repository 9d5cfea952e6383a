"""A strategy whose jobs use everything that a job can, and the routine that its clients run."""

from dataclasses import dataclass

import torch

from fedunlearn.config.conditions import Fraction
from fedunlearn.config.settings import Settings
from fedunlearn.federation.answers import FORGET, TRAIN
from fedunlearn.federation.hosted_routine import Chosen
from fedunlearn.federation.jobs import Job
from fedunlearn.server.plan import RoundPlan
from fedunlearn.strategies.base import UnlearningStrategy
from fedunlearn.unlearning import Method, Passes
from fedunlearn.unlearning.needs import Needs

WINDOW = 4
LR = 0.03


@dataclass(frozen=True)
class PullSettings(Settings):
    """How far the weights are pulled."""

    rate: Fraction = 0.2


def pull(model, forget, retain, *, settings, generator, conditions):
    """Pull the weights to a reference and push the first of them by the brightness of F and R."""
    w = model.vector
    reference = conditions.tensor("reference", len(w))
    push = conditions.tensor("push", WINDOW)
    rest = retain.images.mean() if retain.size else torch.zeros(())
    pulled = model.copy()
    pulled.vector.add_(reference - w, alpha=settings.rate)
    pulled.vector[:WINDOW] += push * forget.images.mean() + rest
    conditions.results["seen"] = torch.stack([forget.images.mean(), rest, torch.tensor(float(forget.size))])
    conditions.results["window"] = pulled.vector[:WINDOW]  # of a model that is used again
    return pulled


PULL = Method(
    name="pull",
    settings=PullSettings,
    unlearn=pull,
    source="nobody",
    passes=lambda settings: Passes(0.5, 0.5),
    needs=lambda settings: Needs(retained=False),
)


@dataclass(frozen=True)
class ProberSettings(Settings):
    """How far ahead the weights lie that clients start from, in steps of the server."""

    ahead: Fraction = 0.5


def pushed(number):
    """Return what a client, or a part, is sent alone."""
    return {"push": 0.01 * (number + 1) * torch.arange(1.0, WINDOW + 1)}


class Prober(UnlearningStrategy):
    """In odd rounds clients train for two epochs from weights that lie ahead, in even ones they run the routine.

    Whom a round forgets run the routine with other settings, from ahead.
    """

    settings_type = ProberSettings
    step = None
    seen = None

    def plan(self, situation):
        if not situation.to_forget:
            return situation.fedavg()
        return RoundPlan(situation.round, situation.sample(situation.slots), situation.to_forget)

    def job(self, start, kind):
        if kind == TRAIN and start.plan.round % 2:
            return Job(epochs=2, lr=LR, start=self._ahead(start.w))
        numbers = start.plan.train if kind == TRAIN else start.plan.forget
        return Job(
            routine=Chosen("tests.server.prober:PULL", PullSettings(rate=0.4 if kind == FORGET else 0.2)),
            start=self._ahead(start.w) if kind == FORGET else None,
            tensors={"reference": start.initial().vector, "push": torch.full((WINDOW,), 9.0)},
            own={k: pushed(k) for k in numbers},
            returns={"seen": 3, "window": WINDOW},
        )

    def combine(self, round):
        made = round.retained.step_from(self._ahead(round.w) if round.plan.round % 2 else round.w)
        total = sum(c.num_examples for c in round.forgetting)
        for c in round.forgetting:
            made = made - 0.3 * c.num_examples / total * c.delta
        for extras in round.extras.values():
            self.seen = extras["seen"] if self.seen is None else self.seen + extras["seen"]
            made[:WINDOW] += 0.01 * extras["window"]
        self.step = made - round.w
        return made

    def state(self):
        return {name: value for name in ("step", "seen") if (value := getattr(self, name)) is not None}

    def load_state(self, state):
        self.step, self.seen = state.get("step"), state.get("seen")

    def _ahead(self, w):
        return w.clone() if self.step is None else w + self.method.ahead * self.step
