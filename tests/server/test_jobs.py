"""Jobs through whole federations: the same bits in every engine, and the numbers of an oracle."""

import pytest
import torch

from fedunlearn.clients.app import app
from fedunlearn.federation.answers import FORGET, TRAIN
from fedunlearn.federation.local import LocalGrid
from tests.server.prober import Prober
from tests.server.probing import (
    FORGOTTEN,
    ROUNDS,
    SEED,
    UNLEARNS,
    by_hand,
    experiment_in,
    federate,
    snapshots,
    trainer_of,
)


def directly(folder, *overrides, workers=1, rounds=ROUNDS, **options):
    _, experiment = experiment_in(folder, *overrides)
    grid = LocalGrid(None, 5, workers=workers, routine=trainer_of(experiment), **options)
    return federate(folder, grid, experiment, rounds=rounds)


def by_messages(folder, *, rounds=ROUNDS):
    path, experiment = experiment_in(folder)
    grid = LocalGrid(app, 5, run_config={"experiment": str(path), "seed": SEED}, workers=2)
    return federate(folder, grid, experiment, rounds=rounds)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, directly(folder)


def test_the_numbers_are_those_of_plain_loops(whole):
    folder, (files, reports) = whole
    _, experiment = experiment_in(folder)
    expected, found = by_hand(experiment), snapshots(folder)
    assert list(files) == list(range(1, ROUNDS + 1))
    assert [r[0].forget for r in reports if r[0].forget] == [FORGOTTEN]
    for t in range(1, ROUNDS + 1):
        w, step, seen = expected[t]
        torch.testing.assert_close(found[t].vector.double(), w, rtol=0, atol=1e-6)
        torch.testing.assert_close(found[t].state["step"].double(), step, rtol=0, atol=1e-6)
        if t > 1:
            torch.testing.assert_close(found[t].state["seen"].double(), seen, rtol=1e-6, atol=1e-5)
    assert all(not failed for _, _, _, failed in reports)


def test_two_workers_write_the_same_bytes(whole, tmp_path):
    assert directly(tmp_path, workers=2) == whole[1]


def test_messages_write_the_same_bytes(whole, tmp_path):
    assert by_messages(tmp_path) == whole[1]


def test_interrupted_it_asks_for_the_same_jobs_and_ends_in_the_same_bytes(whole, tmp_path, monkeypatch):
    """The process dies once the forgetting round's answers are there; the plan is committed, nothing else."""
    asked, jobs = [], Prober.job
    monkeypatch.setattr(
        Prober,
        "job",
        lambda self, start, kind: (
            asked.append(_plainly(start, kind, jobs(self, start, kind))) or asked[-1][-1]
        ),
    )
    with monkeypatch.context() as dying:
        combine = Prober.combine

        def die(self, round):
            if round.plan.round == UNLEARNS:
                raise KeyboardInterrupt
            return combine(self, round)

        dying.setattr(Prober, "combine", die)
        with pytest.raises(KeyboardInterrupt):
            directly(tmp_path)
    before = [entry[:-1] for entry in asked if entry[0] == UNLEARNS]
    asked.clear()
    files, _ = directly(tmp_path)
    assert before == [entry[:-1] for entry in asked if entry[0] == UNLEARNS]
    assert [kind for _, kind, *_ in before] == [TRAIN, FORGET]
    assert files == whole[1][0]


def _plainly(start, kind, job):
    """Return everything in a job, down to the bits, and the job."""
    tensors = {name: t.numpy().tobytes() for name, t in job.tensors.items()}
    own = {k: {name: t.numpy().tobytes() for name, t in mine.items()} for k, mine in job.own.items()}
    begins = None if job.start is None else job.start.numpy().tobytes()
    return start.plan.round, kind, dict(job.told), tensors, own, begins, job
