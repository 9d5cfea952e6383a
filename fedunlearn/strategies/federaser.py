"""FedEraser: forget by a replay of the kept rounds, with fresh directions and stored lengths.

Paper: Liu, Ma, Yang, Wang, Liu, "FedEraser: Enabling Efficient Client-Level Data Removal from Federated Learning
Models", IWQoS 2021.

Formula. The server keeps the updates Δ_k of every client in the rounds t_0 < t_1 < …, every ``interval``. At a
request, a round each, with S_s the participants of t_s that are retained and p_k = n_k / Σ n_k over them:

- step 0, in which nobody is asked: w ← w_0 + Σ p_k Δ_k over S_0, as kept;
- step s ≥ 1: S_s train from w for max(1, ``calibration-ratio`` · local epochs) epochs, which gives Δ̂_k, and
  w ← w + Σ p_k c_k, where ``calibrate`` is
  "client": c_k = ‖Δ_k‖ / ‖Δ̂_k‖ · Δ̂_k;
  "client-layer": the same, of each of the model's parameters by itself;
  "average-layer": c_k[l] = ‖mean Δ[l]‖ / ‖mean Δ̂[l]‖ · Δ̂_k[l] and p_k = 1/|S_s|: kept and fresh updates are averaged
  first, as in all public code.

It is complete with the last kept round. Recovery is federated averaging without U.

Deviations and choices of ours: Δ_k is measured from the weights that the round began with (public code measures it
from those that it ended with, which makes the steps far shorter). The learning rate of a step is that of its kept
round. The c_k take the place of the Δ_k, so that a later request replays what the model has become. A client that
cannot be reached, or fails, is left out of its step; a step without anybody leaves w; a kept round of which nobody is
retained is none. Where no kept round is left, the erased model is w_0. A client that has a part of its data forgotten
is left out of step 0, whose updates are old ones, and trains without the part in the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from fedunlearn.config.conditions import Count, Share
from fedunlearn.config.settings import Settings
from fedunlearn.federation.answers import TRAIN
from fedunlearn.federation.jobs import Job
from fedunlearn.federation.sums import BlockSum, Contribution, norm_of
from fedunlearn.models.layout import Layout
from fedunlearn.server.history import Keeps
from fedunlearn.server.plan import RoundPlan, Situation
from fedunlearn.server.round import Needs, Round, RoundStart
from fedunlearn.strategies.base import UnlearningStrategy
from fedunlearn.training import learning_rate

Calibrate = Literal["client", "client-layer", "average-layer"]


@dataclass(frozen=True)
class FedEraserSettings(Settings):
    """Settings of FedEraser."""

    interval: Count = 1
    calibration_ratio: Share = 0.5
    calibrate: Calibrate = "client"
    half: bool = False  # whether updates are kept as float16


def calibrated(
    stored: Sequence[Contribution], fresh: Sequence[Contribution], layout: Layout, how: Calibrate
) -> list[Contribution]:
    """Return the fresh updates with the lengths of the stored ones, c_k.

    Parameters
    ----------
    stored, fresh
        Of the same clients in the same order. What has no length gets none.
    """
    whole = [slice(0, layout.num_parameters)]
    slices = whole if how == "client" else [slice(at.start, at.stop) for at in layout.values()]
    if how != "average-layer":
        pairs = zip(stored, fresh, strict=True)
        return [replace(c, delta=_as_long(c.delta, old.delta, c.delta, slices)) for old, c in pairs]
    if not fresh:
        return []
    old, new = (BlockSum.of(equal(cs)).mean() for cs in (stored, fresh))
    return [replace(c, delta=_as_long(c.delta, old, new, slices)) for c in fresh]


def equal(contributions: Iterable[Contribution]) -> list[Contribution]:
    """Return contributions that all weigh the same."""
    return [replace(c, num_examples=1) for c in contributions]


def _as_long(vector: Tensor, old: Tensor, new: Tensor, slices: Iterable[slice]) -> Tensor:
    made = vector.clone()
    for at in slices:
        length = norm_of(new[at])
        made[at].mul_(norm_of(old[at]) / length if length else 0.0)
    return made


class FedEraser(UnlearningStrategy):
    """A replay of the kept rounds without the forgotten clients, calibrated by short training."""

    settings_type = FedEraserSettings
    method: FedEraserSettings

    @classmethod
    def needs(cls, method: FedEraserSettings) -> Needs:
        """Return that all updates of the kept rounds are kept, and that the forgotten clients take no part."""
        keeps = Keeps("all", "updates", every=method.interval, half=method.half)
        return Needs(individual=True, online=False, keeps=keeps)

    def plan(self, situation: Situation) -> RoundPlan:
        """Replay a kept round, the first one without asking anybody."""
        forget, step = situation.to_forget, situation.step
        if not forget:
            return situation.fedavg()
        kept, train = self._kept(forget), tuple[int, ...]()
        if not self.history.rounds():  # a forecast: as far as can be told without
            kept = [t for t in range(1, situation.round - step) if self.history.keeps_round(t)]
            train = situation.sample(situation.slots) if 0 < step < len(kept) else ()
        elif step:
            away = situation.gone | situation.absent
            train = tuple(k for k in self.history.clients(kept[step]) if k not in away)
        return RoundPlan(situation.round, train, forget, asks=False, completes=step + 1 >= len(kept))

    def job(self, start: RoundStart, kind: str) -> Job | None:
        """Let the retained clients train for a shorter while, at the rate of the round that is replayed."""
        if kind != TRAIN or not start.plan.forget:
            return None
        train = self.settings.train
        epochs = max(1, round(self.method.calibration_ratio * train.local_epochs))
        return Job(epochs=epochs, lr=learning_rate(train, self._kept(start.plan.forget)[start.plan.step]))

    def combine(self, round: Round) -> Tensor:
        """Take the step of a kept round, or average where nobody is forgotten."""
        if not round.forgets:
            return round.fedavg()
        kept, history = self._kept(round.plan.forget), round.history
        if round.plan.step == 0:
            changed = set(map(self.docket.parts.owner, self._out(round.plan.forget)))
            old = [history.result(t, k) for t in kept[:1] for k in history.clients(t) if k not in changed]
            return _stepped(round.initial().vector, old)
        at = kept[round.plan.step]
        stored = [history.result(at, c.client) for c in round.updates]
        found = calibrated(stored, round.updates, round.layout, self.method.calibrate)
        for c in found:
            history.replace(at, c)
        return _stepped(round.w, equal(found) if self.method.calibrate == "average-layer" else found)

    def buffers(self, round: Round) -> Mapping[str, Tensor]:
        """Return the initial ones at the beginning of a replay; else as ever."""
        replays = round.forgets and round.plan.step == 0
        return dict(round.initial().buffers) if replays else super().buffers(round)

    def _kept(self, forget: Iterable[int]) -> list[int]:
        """Return the kept rounds in which somebody took part who is retained, ascending: the same in every step."""
        out = self._out(forget)
        return [t for t in self.history.rounds() if not out.issuperset(self.history.clients(t))]

    def _out(self, forget: Iterable[int]) -> frozenset[int]:
        """Return whoever is forgotten, now or before, clients and parts."""
        return self.docket.forgotten.union(forget)

    @classmethod
    def describe(cls, method: FedEraserSettings) -> str:
        """Return what a certificate says of it."""
        every = "every round" if method.interval == 1 else f"every {method.interval} rounds"
        length = {
            "client": "each client's update as long as the one that is kept of it",
            "client-layer": "each parameter of a client's update as long as in the kept one",
            "average-layer": "each parameter of their mean as long as in that of the kept ones",
        }[method.calibrate]
        return (
            f"FedEraser, by which the updates of {every} are kept and the model is made anew from its initial "
            "weights without the clients to forget: the others train again for "
            f"{method.calibration_ratio:g} of the usual epochs, {length}"
        )


def _stepped(w: Tensor, updates: Iterable[Contribution]) -> Tensor:
    total = BlockSum.of(updates)
    return total.step_from(w) if total else w.clone()
