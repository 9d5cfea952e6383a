"""What one round leaves behind for those who look on, and what it may fail with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from logging import WARNING

from flwr.app import MetricRecord
from flwr.common.logger import log

from fedunlearn.errors import NOT_FINITE, RunError
from fedunlearn.federation.answers import Answers
from fedunlearn.federation.jobs import Job
from fedunlearn.federation.sums import BlockSum, all_finite
from fedunlearn.models.state import ModelState
from fedunlearn.server.plan import RoundPlan
from fedunlearn.server.recovery import RequestProgress


class QuorumMissedError(RunError):
    """Fewer clients of a round answered than ``federation.quorum`` asks for. Nothing of the round was recorded."""


@dataclass(frozen=True)
class RoundReport:
    """What an observer learns of each round; round 0 is the initial model."""

    round: int
    plan: RoundPlan
    metrics: Mapping[str, float]
    requests: tuple[RequestProgress, ...]
    losses: Mapping[int, float]
    failed: Mapping[int, str]
    coefficients: Mapping[int, float]
    seconds: float


@dataclass
class RoundInProgress:
    """A round between its plan and its checkpoint.

    Attributes
    ----------
    plan : RoundPlan
    failed : dict[int, str]
        Who is on record as failed in it, from before an interruption.
    answers : Answers
        What came back; nothing yet.
    reference : float or None
        Quality of the model before the round, where it forgets somebody and that is known.
    refused : str
        Why the guard has rolled it back; empty: it has not.
    forgets : bool
        Whether anybody's forgetting was applied in it.
    coefficients : Mapping[int, float]
        Client to forget → the factor that its update was multiplied by.
    jobs : Mapping[str, Job]
        What its clients were asked to do other than to train as usual, by kind.
    """

    plan: RoundPlan
    failed: dict[int, str]
    answers: Answers
    reference: float | None = None
    refused: str = ""
    forgets: bool = False
    coefficients: Mapping[int, float] = field(default_factory=dict)
    jobs: Mapping[str, Job] = field(default_factory=dict)

    @property
    def held(self) -> bool:
        """Whether its forgetting is put off, because a client to forget failed."""
        return not self.answers.failed.keys().isdisjoint(self.plan.forget)

    @property
    def forgotten(self) -> tuple[int, ...]:
        """Those whose forgetting was applied in it: who delivered an update for it, or who was not asked for one."""
        if not self.forgets:
            return ()
        return tuple(c.client for c in self.answers.forgetting) if self.plan.asks else self.plan.forget

    def roll_back(self, why: str) -> None:
        """Note that what it made of the weights does not stand."""
        self.refused, self.forgets, self.coefficients = why, False, {}
        self.answers.forgetting = []


def check_quorum(plan: RoundPlan, failed: Mapping[int, str], quorum: float) -> None:
    """Stop where too few of the clients that train answered; clients to forget are waited for instead.

    Raises
    ------
    QuorumMissedError
        With one line that names them, and why the first one failed.
    """
    if missing := _missing(plan, failed, quorum):
        raise QuorumMissedError(f"round {plan.round}: {_missed(plan, missing, failed, quorum)}")
    for client, why in failed.items():
        log(WARNING, "round %d: client %d failed, the round goes on: %s", plan.round, client, why)


def _missing(plan: RoundPlan, failed: Mapping[int, str], quorum: float) -> list[int]:
    """Return which of the clients that train failed, where too few are left; else nobody."""
    missing = sorted(failed.keys() & set(plan.train))
    asked = len(plan.train)
    # As a ratio: in floating point the product 0.56 · 25 is more than the 14 that answered.
    return missing if missing and (asked - len(missing)) / asked < quorum else []


def _missed(plan: RoundPlan, missing: Sequence[int], failed: Mapping[int, str], quorum: float) -> str:
    return (
        f"{len(missing)} of {len(plan.train)} clients failed ({', '.join(map(str, missing))}), "
        f"federation.quorum = {quorum:g} does not allow that; client {missing[0]}: {failed[missing[0]]}"
    )


def divergence(plan: RoundPlan, failed: Mapping[int, str], quorum: float, *, routine: bool) -> str:
    """Say what of a round is no numbers, so that none can follow; empty where the failures are of another kind.

    Parameters
    ----------
    routine
        Whether the clients to forget have a job of the method's, which may diverge. Of those that train as usual an
        update that is no numbers is a fault of the client's, and it is asked again.
    """
    lost = {client for client, why in failed.items() if why.endswith(NOT_FINITE)}
    if routine and lost & set(plan.forget):
        return f"the routine's result {NOT_FINITE}"
    missing = _missing(plan, failed, quorum)
    return _missed(plan, missing, failed, quorum) if lost.intersection(missing) else ""


def no_answers() -> Answers:
    """Return the answers of a round in which nobody was asked."""
    return Answers(BlockSum())


def is_finite(model: ModelState) -> bool:
    """Whether neither the weights nor the buffers hold NaN or Inf."""
    return all(all_finite(t) for t in (model.vector, *model.buffers.values()) if t.is_floating_point())


def floats(metrics: MetricRecord | None) -> dict[str, float]:
    """Return a record's numbers."""
    return {name: float(value) for name, value in (metrics or {}).items() if not isinstance(value, list)}


def mean_loss(answers: Answers) -> MetricRecord | None:
    """Return the unweighted mean of the training losses that clients told, for Flower's history."""
    losses = [loss for loss in answers.losses.values() if math.isfinite(loss)]
    return MetricRecord({"train-loss": sum(losses) / len(losses)}) if losses else None
