"""Who only reads a ledger changes nothing, sees all that is recorded, and needs no folder that can be written to."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fedunlearn
from fedunlearn.requests import Intake, Ledger, LedgerError
from tests.read_only_mount import read_only

B = "federation"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(fedunlearn.__file__).parents[1])}
KILLED = """
import os, signal, sys
from fedunlearn.requests import Intake, Ledger
ledger = Ledger(sys.argv[1])
for client in (1, 2):
    Intake(ledger, num_clients=5).ask([client], source="cli", actor="operator:x")
os.kill(os.getpid(), signal.SIGKILL)
"""
"""A server that dies with its last words in the write-ahead log."""


def closed(place: Path) -> None:
    with Ledger(place) as ledger:
        for client in (1, 2):
            Intake(ledger, num_clients=5).ask([client], source="cli", actor="operator:x")


def killed(place: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, place], env=ENVIRONMENT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert place.with_name(f"{place.name}-wal").stat().st_size > 0


def killed_and_copied_without_the_index(place: Path) -> None:
    killed(place)
    place.with_name(f"{place.name}-shm").unlink()


STATES: list[Callable[[Path], None]] = [closed, killed, killed_and_copied_without_the_index]


@pytest.fixture(params=STATES, ids=lambda make: make.__name__)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / "a run # 1?").mkdir()
    place = tmp_path / "a run # 1?" / "requests.sqlite"
    request.param(place)
    return place


def lying_there(folder: Path) -> dict[str, bytes]:
    # The index holds locks of readers beside what it says of the log.
    return {p.name: b"" if p.name.endswith("-shm") else p.read_bytes() for p in folder.iterdir()}


def test_all_is_read_and_nothing_is_written(place: Path) -> None:
    before = lying_there(place.parent)
    with Ledger(place, read_only=True) as ledger:
        assert [record.clients for record in ledger.requests(B)] == [(1,), (2,)]
        assert ledger.check_trail(B, head=ledger.head(B)) == []
        with pytest.raises(LedgerError, match="readonly"):
            ledger.submit(B, request_id="r", clients=[1])
        with pytest.raises(LedgerError):
            ledger.take_lease(B, "me")
    assert lying_there(place.parent) == before
    with Ledger(place) as ledger:
        assert len(ledger.requests(B)) == 2, "and it is as good as before"


READER = """
import sys
from fedunlearn.requests import Ledger
with Ledger(sys.argv[1], read_only=True) as ledger:
    print(len(ledger.requests("federation")), ledger.check_trail("federation"))
"""


def test_in_a_folder_that_cannot_be_written_to(place: Path) -> None:
    with read_only(place.parent) as there:
        command = [*there, sys.executable, "-c", READER, str(place)]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "2 []"), done.stderr


def test_beside_a_server_at_work_it_sees_what_that_has_recorded(tmp_path: Path) -> None:
    place = tmp_path / "requests.sqlite"
    with Ledger(place) as server, Ledger(place, read_only=True) as reader:
        for count in range(3):
            assert len(reader.requests(B)) == count
            Intake(server, num_clients=5).ask([count], source="cli", actor="operator:x")


def test_a_server_that_begins_to_write_meanwhile_is_noticed(tmp_path: Path) -> None:
    place = tmp_path / "requests.sqlite"
    closed(place)
    with Ledger(place, read_only=True) as reader:
        assert len(reader.requests(B)) == 2
        with Ledger(place) as server:
            Intake(server, num_clients=5).ask([3], source="cli", actor="operator:x")
        with pytest.raises(LedgerError, match="started writing to it meanwhile; read it again"):
            reader.requests(B)


def test_what_is_not_there_or_no_ledger_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="No such file"):
        Ledger(tmp_path / "requests.sqlite", read_only=True)
    assert list(tmp_path.iterdir()) == [], "nothing is made"
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("no ledger" * 1000)
    for name in ("empty", "text"):
        with pytest.raises(LedgerError, match=name):
            Ledger(tmp_path / name, read_only=True)
