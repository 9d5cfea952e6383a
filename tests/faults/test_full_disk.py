"""The run directory's disk fills up: nothing that was acknowledged is lost, and it goes on once there is room."""

from __future__ import annotations

import json
import secrets
import signal

import pytest

from fedunlearn import config
from fedunlearn.requests import ENDS, LIVE_BRANCH, Ledger
from fedunlearn.runs.directory import run_name
from tests.deployment.flower import wait_for
from tests.door.served import Place
from tests.door.served import place as with_roster
from tests.door.test_killed import process as door_of
from tests.faults.record import check_metrics, check_replay, check_requests
from tests.faults.small_disk import small_disk
from tests.faults.test_two_operators import EXPERIMENT, at_once

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
MEGABYTES = 80
"""More than the door wants to see free, so that it is content at first."""


class Full:
    """A run directory on a small disk, its server and its door."""

    def __init__(self, folder, disk):
        self.disk = disk
        self.file, out = folder / "experiment.toml", disk.place / "runs"
        self.file.write_text(EXPERIMENT)
        self.run = out / run_name(config.load(self.file))
        self._command = ("run", self.file, "--out", out, "--resume")
        roster = with_roster(folder, begun=False)
        self.place = Place(self.run, roster.roster, roster.tokens)
        self.server = self.start()
        self.accepted: dict[str, int] = {}
        self.stopped_in: set[int] = set()

    def start(self):
        (server,) = at_once(self._command)
        return server

    def await_rounds(self, number):
        """Wait for so many more rounds."""
        until = number + self.last_round()

        def reached():
            assert self.server.poll() is None, self.server.communicate()
            return self.last_round() >= until or None

        wait_for("rounds", reached)

    def last_round(self):
        if not (self.run / "requests.sqlite").is_file():
            return 0
        with Ledger(self.run / "requests.sqlite") as ledger:
            return ledger.last_round(LIVE_BRANCH)

    def ask(self, knock, client, key):
        """Ask for a client to be forgotten; note what is acknowledged."""
        sent = {"Idempotency-Key": key}
        answer = knock("POST", "/requests", "alice", {"clients": [client]}, headers=sent)
        if answer.status in (200, 202):
            self.accepted[answer.json["request_id"]] = client
        return answer

    def served(self):
        """Whether every acknowledged request has ended."""
        with Ledger(self.run / "requests.sqlite") as ledger:
            states = [ledger.request(LIVE_BRANCH, id_).state for id_ in self.accepted]
        return all(state in ENDS for state in states) or None


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Fill the disk under a server and a door, and free it again; return what they said."""
    folder = tmp_path_factory.mktemp("full")
    with small_disk(folder / "disk", MEGABYTES) as disk:
        full, said = Full(folder, disk), {}
        try:
            full.await_rounds(3)
            with door_of(full.place, "--token-rate", "1000", "--address-rate", "1000") as (_, knock):
                said["healthy"] = knock("GET", "/health")
                assert full.ask(knock, 1, "first").status == 202
                full.disk.fill()
                with Ledger(full.run / "requests.sqlite") as ledger:
                    full.stopped_in.add(ledger.last_round(LIVE_BRANCH))
                said["server"] = full.server.communicate(timeout=300)
                said["code"] = full.server.returncode

                def refused():
                    answer = full.ask(knock, 2, secrets.token_hex(4))
                    return answer if answer.status != 202 else None

                # There may be room left within the ledger's own files: what is acknowledged then is on the disk.
                said["refused"] = wait_for("a refusal", refused)
                said["asked"], said["forget"] = full.ask(knock, 3, "again"), forget(full.run)
                said["full"] = wait_for("the door to notice", lambda: of_status(knock("GET", "/health"), 503))
                full.disk.free()
                said["free"] = wait_for(
                    "the door to recover", lambda: of_status(knock("GET", "/health"), 200)
                )
                said["taken"] = full.ask(knock, 3, "again")
            full.server = full.start()
            wait_for("every acknowledged request to end", full.served)
            full.await_rounds(2)
        finally:
            full.server.send_signal(signal.SIGINT)
            full.server.communicate(timeout=300)
        full.stopped_in.add(full.last_round())
        yield full, said


def of_status(answer, status):
    return answer if answer.status == status else None


def forget(run):
    """Ask on the command line; return the exit code, and what it complained of."""
    (asker,) = at_once(("forget", run, "--client", 4))
    _, errors = asker.communicate(timeout=300)
    return asker.returncode, errors


def test_the_server_stops_and_says_why_in_one_line(full):
    _, said = full
    _, errors = said["server"]
    assert said["code"] == 1, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("failed: ")]
    assert "full" in line or "No space left on device" in line
    assert "requests.sqlite" in line or "checkpoints" in line or "metrics.jsonl" in line, line
    assert "Traceback" not in errors


def test_the_door_says_that_the_disk_is_full_and_takes_requests_again_when_it_is_not(full):
    _, said = full
    assert said["healthy"].status == 200, said["healthy"].body
    for refused in (said["refused"], said["asked"]):
        assert refused.status == 503 and "full" in refused.error, refused.body
        assert int(refused.headers["Retry-After"]) > 0
    assert "the disk is almost full" in said["full"].json["problems"]
    assert said["free"].json == {"status": "ok", "problems": []}
    assert said["taken"].status == 202


def test_on_the_command_line_it_is_one_line(full):
    _, said = full
    code, errors = said["forget"]
    assert code == 1 and errors.startswith("failed: ") and errors.count("\n") == 1, errors


def test_nothing_acknowledged_is_lost_and_nothing_else_recorded(full):
    full, _ = full
    assert {1, 3} <= set(full.accepted.values())
    check_requests(full.run, dict.fromkeys(full.accepted, ("forgotten", "duplicate")))
    check_metrics(full.run, executed_again=full.stopped_in)


def test_the_record_alone_ends_in_the_same_weights(full, tmp_path):
    full, _ = full
    check_replay(config.load(full.file, overrides=["train.rounds=1"]), full.run, tmp_path)
    assert json.loads((full.run / "certificates" / f"{next(iter(full.accepted))}.json").read_text())
