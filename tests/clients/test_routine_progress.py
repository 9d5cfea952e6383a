"""A long local routine says how far it is; a short one says nothing."""

import logging
from types import SimpleNamespace

import pytest

from fedunlearn.clients import routine_progress
from fedunlearn.clients.routine_progress import RoutineProgress
from fedunlearn.clients.tasks import routine_of
from fedunlearn.federation.answers import ASSIGNMENT, FORGET
from fedunlearn.federation.hosted_routine import Chosen
from fedunlearn.federation.jobs import ROUTINE
from fedunlearn.parts import Assignment, Part
from fedunlearn.unlearning.contract import Report
from tests.clients.experiment import write


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by ``step`` seconds whenever it is read."""
    time = SimpleNamespace(now=0.0, step=0.0)

    def monotonic():
        time.now += time.step
        return time.now

    monkeypatch.setattr(routine_progress, "time", SimpleNamespace(monotonic=monotonic))
    return time


@pytest.fixture
def told(monkeypatch):
    """What is logged, a line each."""
    lines = []
    monkeypatch.setattr(
        routine_progress, "log", lambda level, text, *words: lines.append((level, text % words))
    )
    return lines


def test_a_line_every_few_seconds_and_the_last_loss(clock, told):
    progress = RoutineProgress("client 3: salun", every_seconds=5)
    for step in range(1, 13):
        clock.now += 1
        progress(Report(step, 1_000_000, loss=float(step)))
    assert told == [
        (logging.INFO, "client 3: salun: step 5 of 1,000,000"),
        (logging.INFO, "client 3: salun: step 10 of 1,000,000"),
    ]
    assert progress.loss == 12.0


@pytest.mark.parametrize(
    ("assigned", "whose"), [({}, "client 1"), (Part(5, 1, samples=0.5), "client 1, 50 % of the samples")]
)
def test_a_client_says_how_far_its_routine_is(assigned, whose, clock, told, tmp_path):
    forgetting = routine_of(write(tmp_path)[1], 1)
    config = {"round": 1, "lr": 0.1, "seed": 1}
    config[ROUTINE] = Chosen.of("gradient-ascent", {"epochs": 3}).dumps()
    if assigned:
        config[ASSIGNMENT] = Assignment(1, assigned).dumps()
    assert forgetting.train(1, FORGET, config).loss != 0
    assert told == [], "the clock stands still"
    clock.step = 5.0
    forgetting.train(1, FORGET, config)
    assert [line for _, line in told] == [f"{whose}: gradient-ascent: step {n} of 3" for n in (1, 2, 3)]
