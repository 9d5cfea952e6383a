"""What a branch's rounds will be if every client answers, worked out without running them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from fedunlearn.config import Experiment
from fedunlearn.server.branch import Branch, ForgetRequest
from fedunlearn.server.loop import RoundLoop
from fedunlearn.server.plan import RoundPlan, Situation
from fedunlearn.server.serve import make_strategy

MOST_ROUNDS = 10_000
"""A method that has not completed an unlearning after so many rounds is not asked for more."""


@dataclass(frozen=True)
class Unlearning:
    """Requests that are unlearned together.

    Attributes
    ----------
    requests : tuple[ForgetRequest, ...]
    plans : tuple[RoundPlan, ...]
        Of its rounds, one after the other.
    """

    requests: tuple[ForgetRequest, ...]
    plans: tuple[RoundPlan, ...]

    @property
    def last_round(self) -> int:
        """The round that completes it."""
        return self.plans[-1].round

    @property
    def completes(self) -> bool:
        """Whether the method came to an end with it."""
        return self.plans[-1].completes


def unlearnings(experiment: Experiment, branch: Branch) -> tuple[Unlearning, ...]:
    """Return the unlearnings of a branch in order, those included that its last round comes too early for."""
    return _unlearnings(make_strategy(experiment, branch), branch)


def plans(experiment: Experiment, branch: Branch, rounds: Iterable[int] | None = None) -> Iterator[RoundPlan]:
    """Yield a branch's plans of these rounds as they will be if every client answers; default: of all, in order."""
    strategy = make_strategy(experiment, branch)
    ahead = _unlearnings(strategy, branch)
    unlearning = {plan.round: plan for found in ahead for plan in found.plans}
    for round in range(branch.first_round + 1, branch.last_round + 1) if rounds is None else rounds:
        yield unlearning.get(round) or _planned(strategy, branch, round, ahead)


def _unlearnings(strategy: RoundLoop, branch: Branch) -> tuple[Unlearning, ...]:
    waiting, found = list(branch.requests), list[Unlearning]()
    while waiting:
        # Whoever asks while others are unlearned waits for them.
        begins = min(r.at_round for r in waiting) + 1
        begins = max([begins, *(u.last_round + 1 for u in found[-1:])])
        together = tuple(r for r in waiting if r.at_round < begins)
        waiting = [r for r in waiting if r.at_round >= begins]
        made = list[RoundPlan]()
        while not made or not (made[-1].completes or len(made) == MOST_ROUNDS):
            made.append(_planned(strategy, branch, begins + len(made), found, together, len(made)))
        found.append(Unlearning(together, tuple(made)))
    return tuple(found)


def _planned(
    strategy: RoundLoop,
    branch: Branch,
    round: int,
    ahead: Sequence[Unlearning],
    requests: Sequence[ForgetRequest] = (),
    step: int = 0,
) -> RoundPlan:
    """Return one plan, of a round that goes on with the unlearning of these requests if there are any."""
    settings = strategy.settings
    gone = frozenset(k for r in branch.requests if r.at_round < round for k in r.clients)
    plan = strategy.plan(
        Situation(
            round=round,
            num_clients=settings.num_clients,
            slots=settings.slots,
            gone=gone,
            to_forget=tuple(sorted({k for r in requests for k in r.clients})),
            seed=settings.seed,
            step=step,
        )
    )
    forgotten = frozenset(k for u in ahead if u.last_round < round for r in u.requests for k in r.clients)
    without = settings.parts.without(plan.train, plan.forget, gone | strategy.excluded, forgotten)
    completes = plan.completes or not (plan.forget and strategy.forgets)
    return replace(plan, without=without, step=step, completes=completes)
