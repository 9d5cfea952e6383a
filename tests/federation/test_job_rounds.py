"""Rounds with jobs, without messages: who starts where, who is trained in a stack, and what comes back."""

from dataclasses import replace

import pytest
import torch

from fedunlearn.federation.answers import FORGET, TRAIN
from fedunlearn.federation.hosted_routine import Chosen
from fedunlearn.federation.jobs import Job
from fedunlearn.federation.local_trainer import LocalTrainer
from fedunlearn.federation.sums import BlockSum
from tests.federation.contributions import bits
from tests.federation.scripted_routine import ScriptedRoutine, examples_of, round_of, trained

ROUTINE = Chosen.of("fine-tune", {})
AHEAD = torch.linspace(3, 4, 7)
REFERENCE = torch.tensor([1.0, 2.0])
OURS = "the job's is (2,) and torch.float32"
STACKS = [(1, 1), (2, 1), (1, 3), (2, 3)]


class Recording(ScriptedRoutine):
    """Notes who is asked for what, alone or in a stack; sends back what `extras` says, and runs what it is told."""

    def __init__(self, extras=None, faults=(), notes=None):
        super().__init__(dict(faults))
        self.extras = extras or {}
        self.alone, self.stacked = ([], []) if notes is None else notes

    def another(self):
        """Return one with a model of its own, for a worker."""
        return type(self)(self.extras, self.faults, (self.alone, self.stacked))

    def train(self, client, kind, config, tensors):
        self.alone.append((client, kind, dict(config), {name: t.tolist() for name, t in tensors.items()}))
        result = super().train(client, kind, config, tensors)
        ran = config.get("routine", "train")
        if "epochs" in config:
            ran = f"train for {config['epochs']} epochs"
        extras = self.extras.get(client, {}) if "returns" in config else {}
        return replace(result, ran=ran, extras=extras)

    def train_stack(self, clients, start, config):
        self.stacked.append((tuple(clients), dict(config)))
        return super().train_stack(clients, start, config)


def answers_of(work, routine, *, workers=1, batch_clients=1):
    trainer = LocalTrainer(routine.another, workers=workers, batch_clients=batch_clients)
    try:
        return trainer.train_round(work)
    finally:
        trainer.close()


def working(clients, *, forget=(), individually=False, **jobs):
    named = {"train": TRAIN, "forget_job": FORGET}
    work = round_of(clients, forget=forget, individually=individually)
    return replace(work, jobs={named[name]: job for name, job in jobs.items()})


@pytest.mark.parametrize("batch_clients", [1, 3])
@pytest.mark.parametrize("individually", [False, True])
def test_an_update_is_measured_from_where_the_kind_starts(batch_clients, individually):
    work = working(range(5), forget=(9,), individually=individually, train=Job(start=AHEAD))
    answers = answers_of(work, Recording(), batch_clients=batch_clients)
    kept = answers.retained if isinstance(answers.retained, BlockSum) else BlockSum.of(answers.retained)
    n = [examples_of(k) for k in range(5)]
    mean = sum(m * (trained(AHEAD, k, 1) - AHEAD).double() for k, m in enumerate(n)) / sum(n)
    torch.testing.assert_close(kept.mean().double(), mean, rtol=0, atol=1e-6)
    (forgotten,) = answers.forgetting
    w = work.state.vector
    assert bits(forgotten.delta) == bits(trained(w, 9, 1) - w), (
        "the other kind starts from the global weights"
    )


def test_stacks_are_told_what_the_job_says():
    routine = Recording()
    answers_of(working(range(4), train=Job(epochs=2, lr=0.5)), routine, batch_clients=4)
    ((clients, config),) = routine.stacked
    assert clients == (0, 1, 2, 3) and (config["epochs"], config["lr"]) == (2, 0.5)
    assert routine.alone == []


def test_routines_are_run_one_by_one():
    routine = Recording()
    answers = answers_of(working(range(4), train=Job(ROUTINE)), routine, batch_clients=4)
    assert routine.stacked == [] and [client for client, *_ in routine.alone] == [0, 1, 2, 3]
    assert not answers.failed


@pytest.mark.parametrize("workers", [1, 2])
def test_each_client_gets_what_is_sent_to_all_and_what_is_its_own(workers):
    job = Job(ROUTINE, tensors={"r": REFERENCE}, own={1: {"own": REFERENCE + 1}, 9: {"r": REFERENCE + 2}})
    routine = Recording()
    answers_of(working((0, 1), forget=(9,), train=job), routine, workers=workers)
    got = {client: tensors for client, _, _, tensors in routine.alone}
    assert got == {0: {"r": [1, 2]}, 1: {"r": [1, 2], "own": [2, 3]}, 9: {}}


@pytest.mark.parametrize(("workers", "batch_clients"), STACKS)
@pytest.mark.parametrize("individually", [False, True])
def test_extras_come_back_in_client_order_and_those_of_who_failed_do_not(
    workers, batch_clients, individually
):
    extras = {k: {"head": torch.full((2,), float(k)), "seen": torch.ones(1)} for k in range(9)}
    job = Job(ROUTINE, returns={"head": 2, "seen": 1})
    work = working((0, 1, 3, 4), forget=(7, 8), individually=individually, train=job, forget_job=job)
    answers = answers_of(
        work, Recording(extras, {3: "raise", 7: "nan"}), workers=workers, batch_clients=batch_clients
    )
    assert list(answers.failed) == [3, 7]
    assert list(answers.extras) == [0, 1, 4, 8]
    for client, found in answers.extras.items():
        assert {name: t.tolist() for name, t in found.items()} == {"head": [client] * 2, "seen": [1]}
    answers.refuse({}) if not individually else answers.refuse({4: "too long"})
    assert list(answers.extras) == ([0, 1, 8] if individually else [0, 1, 4, 8])


@pytest.mark.parametrize(
    ("extras", "why"),
    [
        ({}, "extras [], the job's are ['head']"),
        ({"tail": torch.ones(2)}, "extras ['tail'], the job's are ['head']"),
        ({"head": torch.ones(2), "x": torch.ones(1)}, "extras ['head', 'x'], the job's are ['head']"),
        ({"head": torch.ones(3)}, f"extra 'head' of shape (3,) and torch.float32, {OURS}"),
        ({"head": torch.ones(2, 1)}, f"extra 'head' of shape (2, 1) and torch.float32, {OURS}"),
        ({"head": torch.ones(2).double()}, f"extra 'head' of shape (2,) and torch.float64, {OURS}"),
        ({"head": torch.tensor([1, float("nan")])}, "extra 'head' holds NaN or Inf"),
        ({"head": torch.tensor([float("inf"), 1])}, "extra 'head' holds NaN or Inf"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("individually", [False, True])
def test_a_client_that_leaves_other_results_is_named_and_counts_for_nothing(extras, why, individually):
    sound = {"head": torch.ones(2)}
    work = working(range(3), individually=individually, train=Job(ROUTINE, returns={"head": 2}))
    answers = answers_of(work, Recording({0: sound, 1: extras, 2: sound}))
    assert answers.failed == {1: f"refused: {why}"}
    assert list(answers.extras) == list(answers.losses) == [0, 2]


def test_extremes_of_float32_are_numbers():
    """Their sum overflows, and they do not."""
    extras = {0: {"head": torch.tensor([3.4e38, 3.4e38])}}
    answers = answers_of(working((0,), train=Job(ROUTINE, returns={"head": 2})), Recording(extras))
    assert not answers.failed and list(answers.extras) == [0]


def test_who_ran_something_else_is_refused_for_that_and_not_for_what_is_missing():
    class Deaf(Recording):
        def train(self, client, kind, config, tensors):
            return super().train(client, kind, {k: v for k, v in config.items() if k == "round"}, tensors)

    jobs = {"train": Job(epochs=2), "forget_job": Job(ROUTINE, returns={"head": 2})}
    answers = answers_of(working((0,), forget=(5,), **jobs), Deaf())
    assert answers.failed[0] == (
        "refused: not what was asked: the client ran 'train' instead of 'train for 2 epochs'"
    )
    assert answers.failed[5].startswith("refused: not what was asked: the client ran 'train' instead of '{")
