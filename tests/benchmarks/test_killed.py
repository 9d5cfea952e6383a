"""The check with a killed Ray worker: it kills one that works, and believes nothing but equal bits."""

import subprocess
import sys
import threading

import pytest
import torch

from benchmarks import killed
from benchmarks.rows import UnavailableError
from fedunlearn.errors import RunError
from tests.benchmarks.tiny import TINY


class Scripted:
    """A row that adds one to its weight, and may be told what else to do in the round with the killing."""

    def __init__(self, then=lambda: 0.0):
        self.weights, self.then = torch.zeros(1), then

    def prepare(self, number, start):
        self.number, self.weights = number, start

    def run(self):
        extra = self.then() if self.number == killed.KILL_IN_ROUND else 0.0
        self.weights = self.weights + 1 + extra

    def vector(self):
        return self.weights

    def close(self):
        pass


@pytest.fixture
def check(monkeypatch):
    """Return a function that makes the check with a Ray row that does this in the round with the killing."""

    def run(then):
        made = {"ray": Scripted(then), "local": Scripted()}
        monkeypatch.setattr(killed.rows, "make", lambda name, *arguments: made[name])
        return killed.killed_worker(TINY)

    return run


def worker_until_killed():
    """Start a process that looks like a Ray worker at work, and wait for its death."""
    name = killed.AT_WORK.decode()
    process = subprocess.Popen([name, "-c", "input()"], executable=sys.executable, stdin=subprocess.PIPE)
    process.wait(60)
    return process.returncode


def test_a_worker_is_killed_while_it_works_and_the_weights_are_compared(check):
    codes = []
    assert check(lambda: codes.append(worker_until_killed()) or 0.0).met
    assert codes == [-9]


def test_another_bit_is_a_failure(check):
    found = check(lambda: worker_until_killed() and 1e-6)
    assert (found.met, found.measured) == (False, "differs by 1e-06")


def test_a_failed_client_is_a_failure(check):
    def fail():
        worker_until_killed()
        raise RunError("round 2: 1 of 3 clients failed")

    found = check(fail)
    assert (found.met, found.measured) == (False, "round 2: 1 of 3 clients failed")


def test_nothing_is_claimed_where_nobody_was_killed(check):
    threads = threading.active_count()
    found = check(lambda: 0.0)
    assert (found.met, found.measured) == (None, "n/a: no worker was found at work")
    assert threading.active_count() == threads


def test_nothing_is_claimed_without_ray(monkeypatch):
    def make(*arguments):
        raise UnavailableError("no Ray here")

    monkeypatch.setattr(killed.rows, "make", make)
    assert killed.killed_worker(TINY).measured == "n/a: no Ray here"
