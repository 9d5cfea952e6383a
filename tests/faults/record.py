"""What must be true of a run directory in the end, whatever died: nothing lost, nothing done twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from fedunlearn.config import Experiment
from fedunlearn.federation.answers import Answers, RoundWork
from fedunlearn.federation.local_trainer import LocalTrainer
from fedunlearn.federation.sums import BlockSum
from fedunlearn.live.local import run_live
from fedunlearn.requests import LIVE_BRANCH, Ledger
from fedunlearn.runs.checkpoints import Checkpoints, weights_hash
from fedunlearn.runs.directory import run_name
from fedunlearn.runs.metrics_log import Address, read_metrics


def check_requests(folder: Path, ends: Mapping[str, Collection[str]]) -> None:
    """Check that the run has these requests and no others, each in a right end state, and a whole trail."""
    with Ledger(folder / "requests.sqlite") as ledger:
        records = {r.id: r for r in ledger.requests(LIVE_BRANCH)}
        plans = {p.round: p.plan for p in ledger.plans(LIVE_BRANCH)}
        entries = Counter((e.request_id, e.to_state) for e in ledger.audit(LIVE_BRANCH))
        assert ledger.check_trail(LIVE_BRANCH, head=ledger.head(LIVE_BRANCH)) == []
    assert records.keys() == ends.keys()
    assert {r.id: r.state for r in records.values() if r.state not in ends[r.id]} == {}
    applied = Counter(
        client
        for round, plan in plans.items()
        if any(records[id_].unlearned_round == round for id_ in plan["requests"])
        for client in plan["forget"]
    )
    forgotten = {k for r in records.values() if r.unlearned_round is not None for k in r.clients}
    assert applied == dict.fromkeys(forgotten, 1), "each is forgotten once"
    for record in records.values():
        if record.unlearned_round is not None:
            assert entries[record.id, "recovering"] == 1
        if record.unlearned_round is not None or record.state == "excluded":
            since = record.unlearned_round or record.ended_round
            later = [plan["train"] for round, plan in plans.items() if round >= since]
            assert not any(set(record.clients) & set(train) for train in later), "and never trains again"


def check_metrics(folder: Path, *, executed_again: Collection[int] = ()) -> None:
    """Check that every round has been reported, and once; one that was executed again may have been so twice."""
    rounds = Checkpoints(folder / "checkpoints", LIVE_BRANCH).rounds()
    lines = [m for m in read_metrics(folder / "metrics.jsonl") if m.branch == LIVE_BRANCH]
    done = set(range(rounds[-1] + 1))
    # One that was stopped may have reported a round whose checkpoint it did not come to publish.
    assert done <= {m.round for m in lines} <= done | set(executed_again)
    counted = Counter(m.address for m in lines)
    doubled = {address[1] for address, times in counted.items() if times > 1}
    assert doubled <= set(executed_again)


@dataclass
class Update:
    """The raw bytes of what one client answered in one round."""

    round: int
    client: int
    content: bytes


def check_replay(experiment: Experiment, folder: Path, out: Path) -> list[Update]:
    """Check that the record alone, executed in one process that nobody kills, ends in the same bits.

    Returns
    -------
    list of Update
        All that the clients answered on the way.
    """
    again = out / run_name(experiment)
    again.mkdir(parents=True)
    with Ledger(folder / "requests.sqlite") as ledger, Ledger(again / "requests.sqlite") as copy:
        copy.load(LIVE_BRANCH, ledger.export(LIVE_BRANCH))
    updates: list[Update] = []
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalTrainer, "train_round", _noting(updates))
        try:
            run_live(experiment, out=out, resume=True)
        finally:
            torch.set_num_threads(threads)
    # One that was stopped may have planned a round that it did not come to.
    one = Checkpoints(folder / "checkpoints", LIVE_BRANCH).latest()
    assert one is not None
    other = Checkpoints(again / "checkpoints", LIVE_BRANCH).load(one.round)
    assert weights_hash(one.vector, one.buffers) == weights_hash(other.vector, other.buffers)
    assert one.meta == other.meta
    # And so does every round on the way, as far as its measures tell.
    assert measures(folder, one.round) == measures(again, one.round)
    return updates


def _noting(updates: list[Update]) -> Callable[[LocalTrainer, RoundWork], Answers]:
    """Return a way to train a round that notes every answer."""
    train_round = LocalTrainer.train_round

    def noting(self: LocalTrainer, work: RoundWork) -> Answers:
        answers = train_round(self, replace(work, individually=True))
        assert isinstance(answers.retained, list)
        for c in [*answers.retained, *answers.forgetting]:
            updates.append(Update(int(work.config["round"]), c.client, c.delta.numpy().tobytes()))
        if not work.individually:
            answers.retained = BlockSum.of(answers.retained)
        return answers

    return noting


def measures(folder: Path, last: int) -> dict[Address, float]:
    """Return what was measured up to a round, but for times; of one that was executed again the last line counts."""
    lines = [m for m in read_metrics(folder / "metrics.jsonl") if m.branch == LIVE_BRANCH]
    return {m.address: m.value for m in lines if m.round <= last and m.metric != "seconds"}
