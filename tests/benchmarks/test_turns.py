"""Rows take turns, do the same work, and are not compared if they do not."""

import pytest
import torch

from benchmarks import bare, rows
from benchmarks.cases import CASES
from benchmarks.measure import in_turns
from benchmarks.turns import take_turns
from fedunlearn import config
from fedunlearn.errors import RunError
from tests.benchmarks.tiny import NOOP, TINY

OURS = ["local", "local-wide", "batched"]


class Scripted:
    """A row that adds ``step`` to every weight and notes what happens."""

    serialised = 0
    note = ""

    def __init__(self, name, log, step=1.0, threads=1):
        self.name, self.log, self.step, self.threads = name, log, step, threads
        self.weights = torch.zeros(2)

    def prepare(self, number, start):
        self.number, self.weights = number, start

    def run(self):
        self.log.append(f"{self.name}{self.number}")
        self.weights = self.weights + self.step

    def vector(self):
        return self.weights


def turns(others, **options):
    log = []
    made = {"bare": Scripted("A", log)} | {name: Scripted(name, log, step) for name, step in others.items()}
    found = take_turns(made, tolerance=dict.fromkeys(made, 0.1), **options)
    return log, found


def test_every_other_round_is_in_the_opposite_order():
    log, _ = turns({"B": 1.0, "C": 1.0}, rounds=2, warm_up=1)
    assert log == ["A1", "B1", "C1", "C2", "B2", "A2", "A3", "B3", "C3"]


def test_warm_up_is_not_counted():
    _, found = turns({"B": 1.0}, rounds=3, warm_up=2)
    assert {name: len(seconds) for name, seconds in found.seconds.items()} == {"bare": 3, "B": 3}
    assert min(found.seconds["bare"] + found.seconds["B"]) > 0


def test_differences_do_not_add_up_over_rounds():
    _, found = turns({"B": 1.05}, rounds=5, warm_up=0)
    assert found.difference["B"] == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize("step", [2.0, torch.nan])
def test_nothing_is_reported_for_other_work(step):
    with pytest.raises(RunError, match=r"weights of B and bare differ by .* after round 1, .* no ratio"):
        turns({"B": step}, rounds=2, warm_up=0)


def test_our_rows_end_every_round_in_the_weights_of_the_bare_loop():
    found, missing, made = in_turns(TINY, OURS, threads=2)
    assert missing == {}
    assert found.difference["local"] <= 1e-6
    assert found.difference["batched"] <= 1e-5
    assert set(found.seconds) == {"bare", *OURS}
    assert [row.serialised for row in made.values()] == [0] * 4


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("derive_seed", lambda *address: 0),  # other batches
        ("learning_rate", lambda settings, number: 2 * settings.lr),
    ],
)
def test_a_bare_loop_that_does_other_work_is_noticed(monkeypatch, name, wrong):
    monkeypatch.setattr(bare, name, wrong)
    with pytest.raises(RunError, match="differ by"):
        in_turns(TINY, ["local"])


def test_a_no_op_leaves_the_model_as_it_is():
    found, missing, _ = in_turns(NOOP, ["local"])
    assert missing == {}
    assert found.difference["local"] == 0


def test_threads_are_each_rows_own(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    made = {name: rows.make(name, TINY, tmp_path, 2) for name in ("bare", "local", "local-wide")}
    asked.clear()
    take_turns(made, rounds=1, warm_up=0, tolerance=dict.fromkeys(made, 1e-5))
    for row in made.values():
        row.close()
    assert asked[:3] == [2, 1, 2]


@pytest.mark.parametrize("case", [c for c in CASES.values() if c.model], ids=lambda c: c.name)
def test_every_client_has_the_images_that_the_tables_say(case):
    experiment = config.loads(case.toml())
    assert experiment.data.source_settings.num_train == case.num_clients * case.images_per_client
    assert (experiment.data.partition, experiment.data.validation) == ("iid", 0.0)
    assert (experiment.train.batch_size, experiment.train.local_epochs) == (32, 1)
    assert (experiment.train.optimizer, experiment.train.momentum) == ("sgd", 0.0)
    assert experiment.federation.participation == 1.0


def test_a_row_that_could_not_stack_is_missing_instead_of_quietly_one_by_one(monkeypatch):
    def broken(*arguments, **options):
        raise NotImplementedError("no such layer")

    monkeypatch.setattr("fedunlearn.clients.classification.Classification.train_stack", broken)
    _, missing, _ = in_turns(TINY, ["batched"])
    assert missing == {"batched": "no such layer"}


@pytest.mark.slow
def test_a_row_of_ray_actors_ends_in_the_weights_of_the_bare_loop_too():
    found, missing, made = in_turns(TINY, ["ray"])
    assert missing == {}
    assert found.difference["ray"] <= 1e-6
    # Down and up at least once: what is in the object store is not free.
    assert made["ray"].serialised >= 2 * 4 * len(made["ray"].vector())
