"""What survives: SIGKILL at every statement, a full disk, several processes on one file."""

import os
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import fedunlearn
from fedunlearn.requests import Ledger, LedgerError
from fedunlearn.requests.schema import SCHEMA_VERSION
from fedunlearn.requests.store import Store
from tests.requests.killed_server import SCRIPTS, open_quickly, snapshot

SERVER = Path(__file__).with_name("killed_server.py")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(fedunlearn.__file__).parents[1])}

SUBMITTER = """
import sys
from fedunlearn.requests import Ledger
print("ready", flush=True)
sys.stdin.readline()
with Ledger(sys.argv[1]) as ledger:
    for k in range(40):
        ledger.submit("b", request_id=f"{sys.argv[2]}-{k}", clients=[k], source="cli")
"""


def test_the_file_is_in_wal_mode_and_commits_are_synced(tmp_path: Path) -> None:
    store = Store(tmp_path / "requests.sqlite")
    assert [store.rows(f"PRAGMA {name}")[0][0] for name in ("journal_mode", "synchronous")] == ["wal", 2]
    store.close()


def killed(folder: Path, script: str) -> list[tuple[Path, int]]:
    """Return the ledgers of a script killed before each of its statements, with the number of calls returned."""
    subprocess.run([sys.executable, SERVER, folder, script], env=ENVIRONMENT, check=True)
    logs = sorted(folder.glob("*.log"), key=lambda log: int(log.stem))
    returned = [len(log.read_text().splitlines()) for log in logs]
    assert returned == sorted(returned) and set(returned) == set(range(len(SCRIPTS[script]) + 1))
    return [(log.with_suffix(".sqlite"), made) for log, made in zip(logs, returned, strict=True)]


def test_killed_while_a_new_file_is_made_the_next_one_makes_it(tmp_path: Path) -> None:
    left = killed(tmp_path, "opening")
    assert len(left) > 10
    for place, _ in left:
        with Ledger(place) as ledger:
            assert ledger.branches() == []
            assert ledger.store.rows("PRAGMA user_version")[0][0] == SCHEMA_VERSION


@pytest.mark.slow
@pytest.mark.parametrize("script", ["server", "intake"])
def test_killed_before_any_statement_a_call_happened_wholly_or_not_at_all(
    tmp_path: Path, script: str
) -> None:
    calls = SCRIPTS[script]
    with Ledger(":memory:") as ledger:
        after = [snapshot(ledger)]
        for call in calls:
            call(ledger)
            after.append(snapshot(ledger))
    assert all(one != other for one, other in pairwise(after)), "every call leaves something behind"
    Ledger(tmp_path / "old.sqlite").close()
    for place, made in killed(tmp_path, script):
        with open_quickly(place) as ledger:
            assert snapshot(ledger) == after[made], f"killed before statement {place.stem}"
            # A restarted server makes all its calls again, and so does whoever asked and got no answer.
            for call in calls:
                call(ledger)
            assert snapshot(ledger) == after[-1], f"restarted after statement {place.stem}"


def test_a_new_file_may_be_opened_by_many_at_once(tmp_path: Path) -> None:
    # SQLite's own waiting leaves out the switch to WAL; without ours some of these openings fail.
    for attempt in range(15):
        barrier = threading.Barrier(8)

        def submit(client: int, place: Path = tmp_path / f"{attempt}.sqlite", start: Any = barrier) -> None:
            start.wait()
            with Ledger(place) as ledger:
                ledger.submit("b", request_id=f"r{client}", clients=[client])

        with ThreadPoolExecutor(8) as pool:
            assert len(list(pool.map(submit, range(8)))) == 8


def test_processes_submit_while_the_server_plans(tmp_path: Path) -> None:
    # None of them finds the file made: opening it together is part of the test.
    place = tmp_path / "requests.sqlite"
    submitters = [
        subprocess.Popen(
            [sys.executable, "-c", SUBMITTER, place, name],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("x", "y")
    ]
    for process in submitters:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in submitters:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    with Ledger(place) as ledger:
        round = 0
        while (running := any(p.poll() is None for p in submitters)) or ledger.due("b", round + 1):
            round += 1
            with ledger.batch():
                ledger.commit_plan("b", round, {"requests": [r.id for r in ledger.due("b", round)]})
            assert running or round < 100_000
        assert [p.wait() for p in submitters] == [0, 0]
        assert {r.id for r in ledger.requests("b")} == {f"{name}-{k}" for name in "xy" for k in range(40)}
        assert {r.state for r in ledger.requests("b")} == {"scheduled"}
        assert sorted(r.arrival for r in ledger.requests("b")) == list(range(1, 81))
        planned = [name for plan in ledger.plans("b") for name in plan.plan["requests"]]
        assert len(planned) == len(set(planned)) == 80
    for process in submitters:
        process.communicate()


def test_a_reader_sees_only_what_was_committed(tmp_path: Path) -> None:
    place = tmp_path / "requests.sqlite"
    with Ledger(place) as server, Ledger(place) as reader:
        with server.batch():
            server.submit("b", request_id="r", clients=[1])
            assert reader.requests("b") == []
        assert [r.id for r in reader.requests("b")] == ["r"]


def test_withdrawing_and_planning_do_not_cross(tmp_path: Path) -> None:
    place = tmp_path / "requests.sqlite"
    with Ledger(place) as server, Ledger(place) as door:
        server.submit("b", request_id="r", clients=[1])
        due = [record.id for record in server.due("b", 1)]
        door.transition("b", "r", "withdrawn", round=0)
        with pytest.raises(LedgerError, match="from 'withdrawn' to 'scheduled'"):
            server.commit_plan("b", 1, {"requests": due})
        server.submit("b", request_id="s", clients=[2])
        server.commit_plan("b", 1, {"requests": ["s"]})
        with pytest.raises(LedgerError, match="from 'scheduled' to 'withdrawn'"):
            door.transition("b", "s", "withdrawn", round=0)


def test_a_full_disk_loses_nothing_and_blocks_nothing(tmp_path: Path) -> None:
    place = tmp_path / "requests.sqlite"
    with Ledger(place) as ledger:
        ledger.submit("b", request_id="r", clients=[1])
        before = snapshot(ledger)
        pages = ledger.store.rows("PRAGMA page_count")[0][0]
        ledger.store.rows(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(LedgerError, match=r"requests.sqlite: database or disk is full"):
            ledger.commit_plan("b", 1, {"requests": ["r"], "padding": "x" * 100_000})
        assert snapshot(ledger) == before
        ledger.store.rows("PRAGMA max_page_count = 100000")
        ledger.commit_plan("b", 1, {"requests": ["r"]})
        assert ledger.request("b", "r").state == "scheduled"


def test_a_round_costs_one_commit_per_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = 0
    execute = Store.rows

    def counted(self: Store, sql: str, *values: object) -> list[sqlite3.Row]:
        nonlocal commits
        commits += sql == "COMMIT"
        return execute(self, sql, *values)

    with Ledger(tmp_path / "requests.sqlite") as ledger:
        for k in range(5):
            ledger.submit("b", request_id=f"r{k}", clients=[k])
        monkeypatch.setattr(Store, "rows", counted)
        ledger.commit_plan("b", 1, {"requests": [f"r{k}" for k in range(5)]})
        assert commits == 1


def test_the_number_of_a_removed_audit_entry_is_not_given_out_again(tmp_path: Path) -> None:
    place = tmp_path / "requests.sqlite"
    with Ledger(place) as ledger:
        ledger.submit("b", request_id="r", clients=[1])
        ledger.transition("b", "r", "waiting", round=1)
        with sqlite3.connect(place) as intruder:
            intruder.execute("DELETE FROM audit WHERE seq = 2")
        ledger.transition("b", "r", "withdrawn", round=2)
        assert [entry.seq for entry in ledger.audit()] == [1, 3]
