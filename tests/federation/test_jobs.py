"""What a job says, to whom, and the jobs that are refused when they are made."""

import json

import pytest
import torch

from fedunlearn.federation.answers import ASSIGNMENT, FORGET, TRAIN, RoundWork, work_of
from fedunlearn.federation.hosted_routine import Chosen
from fedunlearn.federation.jobs import Job
from fedunlearn.models.state import ModelState
from fedunlearn.parts import Assignment, Part

ROUTINE = Chosen.of("fine-tune", {"epochs": 3})
ONES = torch.ones(3)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ({"routine": ROUTINE, "epochs": 2}, "epochs and lr are of ordinary training"),
        ({"routine": ROUTINE, "lr": 0.1}, "epochs and lr are of ordinary training"),
        ({"tensors": {"a": ONES}}, "without a routine"),
        ({"own": {1: {"a": ONES}}}, "without a routine"),
        ({"returns": {"a": 3}}, "without a routine"),
        ({"epochs": 0}, "0 epochs: must be at least 1"),
        ({"lr": 0.0}, "lr = 0.0: must be > 0"),
        ({"lr": float("inf")}, "lr = inf: must be > 0 and finite"),
        ({"lr": float("nan")}, "lr = nan: must be > 0"),
        ({"routine": ROUTINE, "returns": {"a": 0}}, "returns 'a' of length 0"),
        (
            {"routine": ROUTINE, "tensors": {"a": ONES.double()}},
            r"tensor 'a' of shape \(3,\) and torch.float64",
        ),
        ({"routine": ROUTINE, "tensors": {"a": ONES[None]}}, r"tensor 'a' of shape \(1, 3\)"),
        ({"routine": ROUTINE, "own": {4: {"a": torch.ones(())}}}, r"tensor 'a' of shape \(\)"),
    ],
)
def test_a_job_that_nobody_can_do_is_refused_when_it_is_made(made, why):
    with pytest.raises(ValueError, match=why):
        Job(**made)


def test_a_job_says_nothing_that_it_leaves_as_it_is():
    assert Job().told == {} and Job(start=ONES).told == {}
    assert Job(epochs=2, lr=0.5).told == {"epochs": 2, "lr": 0.5}
    told = Job(routine=ROUTINE, returns={"b": 2, "a": 3}).told
    assert Chosen.loads(told["routine"]) == ROUTINE
    assert json.loads(told["returns"]) == {"a": 3, "b": 2}
    assert told.keys() == {"routine", "returns"}


@pytest.mark.parametrize(
    ("config", "ran"),
    [
        ({}, "train"),
        ({"lr": 0.5}, "train"),
        ({"epochs": 1}, "train for 1 epoch"),
        ({"epochs": 12}, "train for 12 epochs"),
        (Job(routine=ROUTINE).told, ROUTINE.dumps()),
    ],
)
def test_what_a_client_says_that_it_ran(config, ran):
    assert work_of(config) == ran


def test_each_kind_has_a_job_of_its_own_and_each_client_its_tensors():
    state = ModelState(torch.zeros(3), {"mean": torch.ones(1)})
    both, own = {"a": ONES, "b": 2 * ONES}, {7: {"b": 7 * ONES, "c": ONES}}
    work = RoundWork(
        state,
        {"round": 4, "lr": 0.1, "seed": 1},
        train=(0, 1),
        forget=(2, 7),
        assignments={7: Assignment(1, Part(7, 1, 0.5))},
        jobs={TRAIN: Job(epochs=2, lr=0.3), FORGET: Job(ROUTINE, start=ONES, tensors=both, own=own)},
    )
    first = work.asked(0, TRAIN)
    assert first.config == {"round": 4, "lr": 0.3, "seed": 1, "epochs": 2}
    assert first.start is state and first.tensors == {}
    second = work.asked(2, FORGET)
    assert second.config == {"round": 4, "lr": 0.1, "seed": 1, "routine": ROUTINE.dumps()}
    assert second.start.vector is ONES and second.start.buffers is state.buffers
    assert second.tensors is both
    third = work.asked(7, FORGET)
    assert third.config.keys() == {*second.config, ASSIGNMENT}
    assert {name: t.tolist() for name, t in third.tensors.items()} == {
        "a": [1] * 3,
        "b": [7] * 3,
        "c": [1] * 3,
    }
