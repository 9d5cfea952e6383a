"""Two operators who do the same thing at the same time: one of them does it, the other is told so in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from fedunlearn import config
from fedunlearn.requests import LIVE_BRANCH, Ledger
from fedunlearn.runs.directory import run_name
from tests.deployment.flower import wait_for
from tests.faults.record import check_metrics, check_replay, check_requests
from tests.interrupts import heed_interrupts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
EXPERIMENT = """
name = "two-operators"
[data]
source = "synthetic-images"
num-train = 160
num-test = 20
num-classes = 4
image-size = 4
partition = "iid"
validation = 0.2
[federation]
num-clients = 8
[model]
name = "mlp"
hidden = [8]
[train]
rounds = 1000000  # it is stopped long before
batch-size = 8
lr = 0.01
[[method]]
name = "puf"
scale = 0.5
[guard]
enabled = false
[requests]
window = 5  # seconds: those who ask at once are considered at once
[recover]
until = "max-rounds"
max-rounds = 2
[retention]
earlier = "purge"
"""
COMMAND = [sys.executable, "-m", "fedunlearn.cli"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "300"}


def at_once(*commands: Sequence[object]) -> list[subprocess.Popen[str]]:
    """Start commands at the same time."""
    return [
        subprocess.Popen(
            [*COMMAND, *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
            preexec_fn=heed_interrupts,
        )
        for words in commands
    ]


class Stage:
    """A run directory, and the servers that compete for it."""

    def __init__(self, folder: Path) -> None:
        self.file, self.out = folder / "experiment.toml", folder / "runs"
        self.file.write_text(EXPERIMENT)
        self.experiment = config.load(self.file)
        self.run = self.out / run_name(self.experiment)
        self.stopped_in: set[int] = set()

    def compete(self) -> subprocess.Popen[str]:
        """Start two servers at once; return the one that serves, once the other has been turned away."""
        words = ("run", self.file, "--out", self.out, "--resume")
        servers = at_once(words, words)
        try:
            turned_away = wait_for(
                "one of two servers to give up",
                lambda: next((s for s in servers if s.poll() is not None), None),
            )
            _, errors = turned_away.communicate()
            assert turned_away.returncode == 2, errors
            assert (
                errors == f"error: {self.run}: another process is running it; wait for it or stop it first\n"
            )
            (serving,) = (s for s in servers if s is not turned_away)
            before = self.last_round()
            wait_for("a round", lambda: self.last_round() > before + 1 or None)
            assert serving.poll() is None, serving.communicate()
        except BaseException:
            for server in servers:
                server.kill()
            raise
        return serving

    def stop(self, server: subprocess.Popen[str]) -> None:
        """Stop a server, as at a terminal."""
        server.send_signal(signal.SIGINT)
        said, errors = server.communicate(timeout=300)
        assert server.returncode == 1, errors
        assert said.count("stopped; continue with: fedunlearn run") == 1
        self.stopped_in.add(self.last_round())

    def last_round(self) -> int:
        if not (self.run / "requests.sqlite").is_file():
            return 0
        with Ledger(self.run / "requests.sqlite") as ledger:
            return ledger.last_round(LIVE_BRANCH)


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """Two servers at once, two people who ask, once more two servers."""
    stage = Stage(tmp_path_factory.mktemp("two"))
    first = stage.compete()
    # Both ask for client 3 at once; one of them for another client, too, and one for a third.
    said = []
    try:
        for asker in at_once(
            ("forget", stage.run, "--client", 3, "--wait"),
            ("forget", stage.run, "--client", 3, "--wait"),
            ("forget", stage.run, "--client", 5, "--client", 3, "--wait"),
        ):
            out, errors = asker.communicate(timeout=600)
            assert asker.returncode == 0, out + errors
            said.append(out)
    finally:
        stage.stop(first)
    second = stage.compete()
    stage.stop(second)
    return stage, said


def test_one_of_two_requests_for_a_client_is_served_and_the_other_is_its_duplicate(stage):
    stage, said = stage
    with Ledger(stage.run / "requests.sqlite") as ledger:
        records = {r.id: r for r in ledger.requests(LIVE_BRANCH)}
    named = {out.split("request ", 1)[1].split(":", 1)[0]: out for out in said}
    assert named.keys() == records.keys(), "each was told of a request of its own, and there are no others"
    single = [r for r in records.values() if r.clients == (3,)]
    both = next(r for r in records.values() if r.clients == (3, 5))
    assert len(single) == 2 and both.state == "forgotten"
    assert sorted(r.state for r in single) in (
        ["duplicate", "forgotten"],
        ["duplicate", "duplicate"],  # the one for both clients came first
    )
    check_requests(stage.run, {r.id: (r.state,) for r in records.values()})


def test_nothing_is_written_twice(stage):
    stage, _ = stage
    check_metrics(stage.run, executed_again=stage.stopped_in)
    with Ledger(stage.run / "requests.sqlite") as ledger:
        assert len(ledger.servers(LIVE_BRANCH)) == 2, "those that were turned away never took the lease"


def test_the_record_alone_ends_in_the_same_weights(stage, tmp_path):
    stage, _ = stage
    # Beyond its rounds a federation goes on for what has been planned, and ends there.
    once_more = config.load(stage.file, overrides=["train.rounds=1"])
    check_replay(once_more, stage.run, tmp_path)
