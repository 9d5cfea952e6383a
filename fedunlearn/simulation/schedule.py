"""Which models a scorecard is about: from how branches ended to its rows, before anything is measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from fedunlearn.config import Experiment
from fedunlearn.server.branch import Branch, ForgetRequest
from fedunlearn.simulation.branches import Moment, branches, floor_name, moments, retrained_round

Record = Mapping[str, Any]

_UNSERVED: dict[str, Any] = {
    "outcome": None,
    "unlearned_round": None,
    "ended_round": None,
    "recovered_round_authors": None,
}


class Appointment(NamedTuple):
    """One row to come: a branch's model of a round, measured for a request (None: for all of a timeline).

    ``diverged``: by that round the branch had no model any more; there is nothing to measure, and the row says so.
    ``failed``: the forgetting failed, and what model there is has not been asked to forget; the row says so, too.
    """

    branch: Branch
    moment: Moment
    request: ForgetRequest | None
    at: str
    round: int
    diverged: bool = False
    failed: bool = False


def never_forgot(progress: Record) -> bool:
    """Whether the forgetting of a request failed, until it was given up or the branch ended, or was not come to."""
    return progress["unlearned_round"] is None and progress["outcome"] in (None, "failed")


class Schedule:
    """All rows of one experiment seed, in their order.

    Parameters
    ----------
    experiment, seed
    records
        By branch name how it ended, as ``branches.json`` has it: ``last_round``, and of methods ``requests``.
    """

    def __init__(self, experiment: Experiment, seed: int, records: Mapping[str, Record]) -> None:
        self._experiment = experiment
        self._seed = seed
        self._records = records
        self.branches = {b.name: b for b in branches(experiment, seed)}
        self._moments = moments(experiment, seed)

    def __iter__(self) -> Iterator[Appointment]:
        """Yield the rows, moment by moment: original, retrain, then each method."""
        original = self.branches[f"original-s{self._seed}"]
        for moment in self._moments:
            for request in moment.requests:
                yield Appointment(original, moment, request, "request", moment.at_round)
                for at, round in self._retrain_rounds(moment, request):
                    yield Appointment(self.retrain(moment), moment, request, at, round)
                for branch in self._methods(moment):
                    for at, round, diverged, failed in self._method_rounds(branch, moment, request):
                        yield Appointment(branch, moment, request, at, round, diverged, failed)
        if not self._experiment.branching:
            last = self._moments[-1]
            # What there was to forget, all of it together: the original of when the last request came.
            yield Appointment(original, last, None, "final", last.at_round)
            for branch in self._methods(last):
                end = self.diverged_round(branch)
                # The retrained model that the row stands beside is kept from the last request on.
                round = (
                    self._records[branch.name]["last_round"] if end is None else max(end, last.at_round + 1)
                )
                # What has not forgotten all that it was to is not measured as if it had.
                failed = end is None and any(never_forgot(self.progress(branch, r)) for r in branch.requests)
                yield Appointment(branch, last, None, "final", round, end is not None, failed)

    def retrain(self, moment: Moment) -> Branch:
        """Return the retrained model that a moment's rows are held against."""
        return self.branches[f"retrain-{moment.index}-s{self._seed}"]

    def floors(self, moment: Moment) -> tuple[Branch, ...]:
        """Return the models retrained with other seeds."""
        numbers = range(self._experiment.floor.retrainings)
        return tuple(self.branches[floor_name(moment.index, self._seed, number)] for number in numbers)

    def progress(self, branch: Branch, request: ForgetRequest) -> Record:
        """Return what became of a request in a branch; one that others held up to its end, it knows nothing of."""
        found: list[Record] = self._records[branch.name]["requests"]
        return next((r for r in found if r["id"] == request.id), _UNSERVED | {"id": request.id})

    def recovered_round(self, branch: Branch, request: ForgetRequest) -> int | None:
        """Return the round in which a request recovered; None too where recovery is only so many rounds long."""
        progress = self.progress(branch, request)
        judged = self._experiment.recover.until != "max-rounds"
        return progress["ended_round"] if judged and progress["outcome"] == "recovered" else None

    def diverged_round(self, branch: Branch) -> int | None:
        """Return the round in which a branch's weights became no numbers; None: they are numbers.

        Where that was after its requests had ended, no request tells, but the branch ended before its time.
        """
        record = self._records[branch.name]
        for request in record["requests"]:
            if request["outcome"] == "diverged":
                ended: int = request["ended_round"]
                return ended
        last: int = record["last_round"]
        due = self._experiment.train.rounds if branch.stop_when_recovered else branch.last_round
        return last + 1 if last < due else None

    def _methods(self, moment: Moment) -> list[Branch]:
        # A timeline's methods go through all moments, each in one branch without a target.
        target = moment.index if self._experiment.branching else None
        return self._by_target.get(target, [])

    @cached_property
    def _by_target(self) -> dict[int | None, list[Branch]]:
        found: dict[int | None, list[Branch]] = {}
        for branch in self.branches.values():
            if branch.kind == "method":
                found.setdefault(branch.target, []).append(branch)
        return found

    def _retrain_rounds(self, moment: Moment, request: ForgetRequest) -> Iterator[tuple[str, int]]:
        yield "request", moment.at_round
        compare = self._compare_round(moment, request)
        if compare is not None:
            yield "compare", retrained_round(self._experiment, compare)
        if self._experiment.branching:
            cap = moment.at_round + self._experiment.recover.max_rounds
            yield "cap", retrained_round(self._experiment, cap)

    def _method_rounds(
        self, branch: Branch, moment: Moment, request: ForgetRequest
    ) -> Iterator[tuple[str, int, bool, bool]]:
        unlearned: int | None = self.progress(branch, request)["unlearned_round"]
        failed = never_forgot(self.progress(branch, request))
        diverged = None if failed else self.diverged_round(branch)
        if unlearned is None and diverged is None and not failed:
            return
        # A branch that diverged or failed has rows for all moments that it would have come to.
        lost = failed or diverged is not None
        end = branch.last_round if lost else self._records[branch.name]["last_round"]
        later = self._moments[moment.index + 1 :] if not self._experiment.branching else ()
        if later:  # from the next request on, the branch is about more than this one
            end = min(end, later[0].at_round)
        cap = moment.at_round + self._experiment.recover.max_rounds
        # What was never unlearned stands beside a retrained model, which may end before the branch diverges.
        kept = max(cap, self.retrain(moment).last_round)
        rounds = {
            "unlearned": unlearned or min(max(diverged or 0, moment.at_round + 1), kept),
            "recovered": self.recovered_round(branch, request),
            "compare": self._compare_round(moment, request),
            "cap": cap,
        }
        for at, round in rounds.items():
            if round is not None and (round <= end or at == "unlearned"):
                yield at, round, diverged is not None and round >= diverged, failed

    def _compare_round(self, moment: Moment, request: ForgetRequest) -> int | None:
        """Return the round at which the experiment's first PUF recovered, where all methods are compared."""
        for branch in self._methods(moment):
            if branch.method is not None and branch.method.name == "puf":
                return self.recovered_round(branch, request)
        return None
