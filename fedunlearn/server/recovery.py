"""How far each forget request has come, and when it counts as recovered. Pure functions, no federation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from fedunlearn.errors import ConfigError, RunError

Until = Literal["retrain-accuracy", "reference-accuracy", "max-rounds"]
Outcome = Literal["recovered", "superseded", "capped", "failed", "refused", "diverged", "empty"]


@dataclass(frozen=True)
class RequestProgress:
    """One request as the checkpoint knows it; the checkpoint, not the ledger, is the authority.

    Attributes
    ----------
    id : str
    clients : tuple[int, ...]
    at_round : int
        The request arrived once this round was complete.
    attempts : int
        Rounds in which its forgetting was planned but a forgetting client failed.
    unanswered : int
        Those of them in which a client of its own failed. The others it waited for another request's.
    unlearned_round : int or None
        The round in which it was applied.
    outcome : str or None
        ``recovered``; ``superseded`` by a later request that took over the recovery target; ``capped``: not
        recovered within the cap (a censored run); ``failed``: its clients never answered; ``refused``: the guard
        of a live federation rolled its step back; ``diverged``: the weights were no numbers before it had ended;
        ``empty``: its clients have none of the data it names, or none that had not been forgotten. None while
        open.
    ended_round : int or None
        The round of the outcome.
    recovered_round_authors : int or None
        First round at which the rule of PUF's authors holds: *test* quality reaches the retrained model's
        after ``train.rounds`` rounds. Reported beside ours, decides nothing.
    reference : float or None
        Quality (percent) of the global model before it was unlearned, which recovery is to reach again; of one
        that took over another's recovery, the higher of theirs. Live federations only.
    alone : bool
        Whether it is to be unlearned by itself, because the guard rolled back a step that it shared with others.
    reason : str
        Why the guard rolled back its step the last time, how the weights diverged, or what its clients failed with.
    steps : int
        Rounds of its unlearning that are behind and did not complete it: of three, 1 and then 2, and 2 from then on.
    held : bool
        Whether the last round was to be the next of them, and a client to forget failed in it.
    """

    id: str
    clients: tuple[int, ...]
    at_round: int
    attempts: int = 0
    unanswered: int = 0
    unlearned_round: int | None = None
    outcome: Outcome | None = None
    ended_round: int | None = None
    recovered_round_authors: int | None = None
    reference: float | None = None
    alone: bool = False
    reason: str = ""
    steps: int = 0
    held: bool = False

    @property
    def under_way(self) -> bool:
        """Whether it is in the middle of an unlearning of several rounds."""
        return self.steps > 0 and self.unlearned_round is None and self.outcome is None

    @property
    def recovering(self) -> bool:
        """Whether it has been applied and its recovery is still open."""
        return self.unlearned_round is not None and self.outcome is None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        progress = asdict(self) | {"clients": list(self.clients)}
        # The account of a simulation, and of a method of one round, is what it always was.
        seldom = {"reference": None, "alone": False, "reason": "", "steps": 0, "held": False}
        return {k: v for k, v in progress.items() if k not in seldom or v is not seldom[k]}

    @classmethod
    def from_dict(cls, progress: Mapping[str, Any]) -> RequestProgress:
        """Inverse of :meth:`to_dict`."""
        return cls(**{**progress, "clients": tuple(progress["clients"])})

    def ledger_state(self, *, forgets: bool) -> str | None:
        """Return the ledger state that this progress stands for; None leaves the ledger as it is.

        ``forgets`` is false for methods that only leave the client out: that is never called forgotten.
        """
        if self.outcome in ("failed", "refused"):
            return self.outcome
        if self.outcome == "empty":
            return "excluded"
        if self.unlearned_round is None:
            if self.outcome == "diverged":
                return "failed"
            waits = self.held if self.under_way else self.attempts > 0
            return "waiting" if waits else None
        if not forgets:
            return "excluded"
        return {
            None: "recovering",
            "recovered": "forgotten",
            "superseded": "superseded",
            "capped": "forgotten-unrecovered",
            "diverged": "forgotten-unrecovered",
        }[self.outcome]


@dataclass(frozen=True)
class RetrainReference:
    """The retrained model that recovery is measured against, by what the task calls quality, in percent.

    Attributes
    ----------
    validation : Mapping[int, float]
        By round: quality(Oracle(e, t)) on the validation split.
    test_at_end : float or None
        Test quality after ``train.rounds`` rounds, for the authors' rule.
    """

    validation: Mapping[int, float]
    test_at_end: float | None = None


@dataclass(frozen=True)
class RecoveryRule:
    """When a request has recovered.

    Attributes
    ----------
    until : str
        ``retrain-accuracy``: validation quality within ``epsilon`` of the retrained model's at the same round.
        ``reference-accuracy``: within ``epsilon`` of the global model's before the request was unlearned.
        ``max-rounds``: at the cap.
    epsilon : float
        Points of quality (0–100), ≥ 0.
    max_rounds : int
        Cap; the rounds of the unlearning count, so that the least is as many as that takes.
    references : Mapping[frozenset[int], RetrainReference]
        By the set of all clients forgotten so far.
    quality : str
        What the task calls quality: ``accuracy``, or ``dice`` of masks.

    Raises
    ------
    ConfigError
        A value means nothing.
    """

    until: str = "max-rounds"
    epsilon: float = 0.0
    max_rounds: int = 15
    references: Mapping[frozenset[int], RetrainReference] | None = None
    quality: str = "accuracy"

    def __post_init__(self) -> None:
        if self.until not in get_args(Until):
            known = ", ".join(map(repr, get_args(Until)))
            raise ConfigError(f"recover.until = {self.until!r}: must be one of {known}")
        if not 0 <= self.epsilon < math.inf:
            raise ConfigError(f"recover.epsilon = {self.epsilon!r}: must be a number >= 0")
        if self.max_rounds < 1:
            raise ConfigError(f"recover.max-rounds = {self.max_rounds!r}: must be at least 1")

    def judge(
        self, requests: Iterable[RequestProgress], round: int, metrics: Mapping[str, float]
    ) -> tuple[RequestProgress, ...]:
        """Return the requests as they stand after ``round``, given the server's measures of its weights.

        ``metrics`` holds ``validation-<quality>`` and, for the authors' rule, ``test-<quality>``, in percent. In the
        middle of an unlearning nothing is judged: the model has forgotten neither all nor nothing of it.

        Raises
        ------
        RunError
            If there is no retrained model to compare with: another set of clients has been forgotten than
            was planned for (a request failed), or its oracle was not trained for so many rounds.
        """
        requests = tuple(requests)
        if any(r.under_way for r in requests):
            return requests
        newest = max((r.unlearned_round or 0 for r in requests), default=0)
        forgotten = frozenset(k for r in requests if r.unlearned_round is not None for k in r.clients)
        reference = (self.references or {}).get(forgotten)
        return tuple(self._judge_one(r, newest, reference, round, metrics) for r in requests)

    def _judge_one(
        self,
        request: RequestProgress,
        newest: int,
        reference: RetrainReference | None,
        round: int,
        metrics: Mapping[str, float],
    ) -> RequestProgress:
        unlearned = request.unlearned_round
        if unlearned is None:
            return request
        if (
            request.recovered_round_authors is None
            and unlearned == newest
            and reference is not None
            and reference.test_at_end is not None
            and metrics.get(f"test-{self.quality}", -math.inf) >= reference.test_at_end
        ):
            request = replace(request, recovered_round_authors=round)
        if request.outcome is not None:
            return request
        if unlearned < newest:
            return replace(request, outcome="superseded", ended_round=round)
        at_cap = round - self._began(request, unlearned) + 1 >= self.max_rounds
        quality = metrics.get(f"validation-{self.quality}", -math.inf)
        if self.until == "max-rounds":
            recovered = at_cap
        elif self.until == "reference-accuracy":
            # Without a reference nobody can say that it has recovered: it ends at the cap.
            recovered = request.reference is not None and quality >= request.reference - self.epsilon
        else:
            target = None if reference is None else reference.validation.get(round)
            if target is None:
                raise RunError(
                    f"round {round}: no retrained model without exactly the clients forgotten so far to judge "
                    f"the recovery of request {request.id} by"
                )
            # A model that has diverged has no quality, and has not recovered.
            recovered = quality >= target - self.epsilon
        if recovered:
            return replace(request, outcome="recovered", ended_round=round)
        return replace(request, outcome="capped", ended_round=round) if at_cap else request

    def _began(self, request: RequestProgress, unlearned: int) -> int:
        """Return the round from which a request's rounds are counted: the first of its unlearning."""
        began = unlearned - request.steps
        if not self.references:
            return began
        # A retrained model has so many rounds from the request on, whatever unlearning that had to wait for.
        return min(began, request.at_round + request.attempts + 1)
