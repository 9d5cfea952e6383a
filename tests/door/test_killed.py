"""The door as a process: killed at random instants it loses nothing it acknowledged, and doubles nothing."""

from __future__ import annotations

import http.client
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from fedunlearn.cli.main import app
from fedunlearn.errors import RunError, UserError
from fedunlearn.requests import LIVE_BRANCH, Head, Ledger
from tests.door.served import EXPERIMENT, Caller, Place, eventually

COMMAND = [sys.executable, "-m", "fedunlearn.cli", "door"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


@contextmanager
def process(at: Place, *options: str) -> Iterator[tuple[subprocess.Popen[str], Caller]]:
    """A door started from the command line; killed at the end if it still runs."""
    words = [
        *COMMAND,
        str(at.folder),
        "--roster",
        str(at.roster),
        "--port",
        "0",
        "--insecure-loopback",
        *options,
    ]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as door:
        try:
            line = door.stdout.readline()
            assert line.startswith("door: http://127.0.0.1:"), door.stderr.read()
            yield door, Caller(line.removeprefix("door: ").strip(), at.tokens)
        finally:
            door.kill()


@pytest.mark.capability("door")
def test_told_to_stop_it_finishes_and_exits_with_0(at) -> None:
    for sent in (signal.SIGTERM, signal.SIGINT):
        with process(at) as (door, knock):
            assert knock("POST", "/requests", "3", {"clients": [3]}).status == 202
            door.send_signal(sent)
            _, errors = door.communicate(timeout=30)
            assert door.returncode == 0
        assert "Traceback" not in errors
        assert "POST /requests 202 client:3" in errors
        assert not any(token in errors for token in at.tokens.values())


@pytest.mark.slow
def test_killed_at_random_instants_it_keeps_what_it_acknowledged_and_doubles_nothing(at) -> None:
    """Four callers send 60 requests with keys, each again and again until it has an answer, over five kills."""
    draw = random.Random(11)
    kills = 5
    receipts: dict[str, dict] = {}
    current: list[Caller] = []
    opened = threading.Condition()

    def post(part: int) -> None:
        for number in range(15):
            key = f"{part}-{number}"
            while key not in receipts:
                with opened:
                    assert opened.wait_for(lambda: current, timeout=60)
                    knock = current[0]
                try:
                    answer = knock(
                        "POST",
                        "/requests",
                        "alice",
                        {"clients": [number % 8]},
                        headers={"Idempotency-Key": key},
                    )
                except (OSError, http.client.HTTPException):
                    with opened:
                        if current and current[0] is knock:
                            current.clear()
                            opened.notify_all()
                    continue
                assert answer.status in (200, 202), answer.body
                receipts[key] = answer.json

    posters = [threading.Thread(target=post, args=(part,)) for part in range(4)]
    for poster in posters:
        poster.start()
    for turn in range(kills + 1):
        with process(at, "--token-rate", "1000", "--address-rate", "1000") as (door, knock):
            with opened:
                current[:] = [knock]
                opened.notify_all()
            if turn < kills:
                target = 9 * turn + draw.randrange(1, 9)
                eventually(lambda target=target: len(receipts) >= target, 60)
                assert len(receipts) < 60, "nothing was under way any more"
                door.send_signal(signal.SIGKILL)
                door.wait(30)
                with opened:  # nobody waits for one that is dead
                    current.clear()
            else:
                for poster in posters:
                    poster.join(60)
    assert len(receipts) == 60
    with Ledger(at.folder / "requests.sqlite") as ledger:
        records = {record.id: record for record in ledger.requests(LIVE_BRANCH)}
        assert set(records) == {receipt["request_id"] for receipt in receipts.values()}
        assert len(records) == 60
        for receipt in receipts.values():
            assert list(records[receipt["request_id"]].clients) == receipt["clients"]
            assert ledger.check_trail(LIVE_BRANCH, head=Head.parse(receipt["head"])) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "--insecure-loopback"),
        (["--insecure-loopback", "--host", "0.0.0.0"], "sent unencrypted"),
        (["--tls-cert", "c.pem"], "give both"),
        (["--tls-cert", "c.pem", "--tls-key", "k.pem"], "no such file"),
        (["--tls-cert", "c.pem", "--tls-key", "k.pem", "--insecure-loopback"], "leave it out"),
        (["--insecure-loopback", "--roster", "none.toml"], "roster init"),
    ],
)
def test_a_door_that_must_not_open_says_why_in_one_line(at, options, says) -> None:
    words = ["door", str(at.folder), "--roster", str(at.roster), "--port", "0", *options]
    with pytest.raises(UserError) as caught:
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_door_to_an_experiment_with_targets_does_not_open(at) -> None:
    text = EXPERIMENT.replace("requests = {}", "targets = [[0]]").replace("reference-accuracy", "max-rounds")
    (at.folder / "experiment.toml").write_text(text)
    words = ["door", str(at.folder), "--roster", str(at.roster), "--port", "0", "--insecure-loopback"]
    with pytest.raises(RunError, match=r"needs one with \[requests\]"):
        CliRunner().invoke(app, words, catch_exceptions=False)


def test_a_door_that_must_not_open_exits_with_2(at) -> None:
    words = [*COMMAND, str(at.folder), "--roster", str(at.roster), "--port", "0"]
    found = subprocess.run(words, capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("error: --tls-cert") and found.stderr.count("\n") == 1
