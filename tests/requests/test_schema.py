"""Ledgers of version 1 become ledgers of this version in place, wholly or not at all."""

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import fedunlearn
from fedunlearn.requests import Intake, Ledger, LedgerError
from tests.requests.killed_server import snapshot

SERVER = Path(__file__).with_name("killed_server.py")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(fedunlearn.__file__).parents[1])}

# As version 1 wrote it.
VERSION_1 = """
CREATE TABLE requests (
    branch TEXT NOT NULL,
    id TEXT NOT NULL,
    clients TEXT NOT NULL,
    at_round INTEGER,
    source TEXT NOT NULL,
    arrival INTEGER NOT NULL,
    state TEXT NOT NULL,
    state_round INTEGER,
    unlearned_round INTEGER,
    ended_round INTEGER,
    PRIMARY KEY (branch, id)
) WITHOUT ROWID;
CREATE TABLE plans (
    branch TEXT NOT NULL,
    round INTEGER NOT NULL,
    plan TEXT NOT NULL,
    failed TEXT,
    PRIMARY KEY (branch, round)
) WITHOUT ROWID;
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    branch TEXT NOT NULL,
    request_id TEXT NOT NULL,
    from_state TEXT,
    to_state TEXT NOT NULL,
    round INTEGER,
    at REAL NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX audit_of_request ON audit (branch, request_id, to_state, round);
PRAGMA user_version = 1;
INSERT INTO requests VALUES ('b', 'r1', '[1,2]', 1, 'experiment', 1, 'forgotten', 4, 2, 4);
INSERT INTO requests VALUES ('b', 'r2', '[3]', NULL, 'cli', 2, 'waiting', 2, NULL, NULL);
INSERT INTO requests VALUES ('other', 'r1', '[3]', NULL, 'cli', 1, 'received', NULL, NULL, NULL);
INSERT INTO plans VALUES ('b', 2, '{"requests":["r1"],"scale":0.1}', '{"3":"lost"}');
INSERT INTO plans VALUES ('b', 3, '{"requests":[]}', NULL);
INSERT INTO audit VALUES (1, 'b', 'r1', NULL, 'received', 1, 10.5, 'experiment');
INSERT INTO audit VALUES (2, 'other', 'r1', NULL, 'received', NULL, 10.75, 'cli');
INSERT INTO audit VALUES (3, 'b', 'r2', NULL, 'received', NULL, 11.0, 'cli');
INSERT INTO audit VALUES (4, 'b', 'r1', 'received', 'scheduled', 2, 12.0, '');
INSERT INTO audit VALUES (5, 'b', 'r1', 'scheduled', 'unlearning', 2, 13.0, '');
INSERT INTO audit VALUES (6, 'b', 'r2', 'received', 'waiting', 2, 13.5, 'client 3 failed');
INSERT INTO audit VALUES (7, 'b', 'r1', 'unlearning', 'recovering', 2, 14.0, '');
INSERT INTO audit VALUES (8, 'b', 'r1', 'recovering', 'forgotten', 4, 15.0, 'within epsilon');
INSERT INTO audit VALUES (12, 'b', 'gone', NULL, 'received', 2, 16.0, '');
DELETE FROM audit WHERE seq = 12;
"""


def write_version_1(place: Path) -> None:
    connection = sqlite3.connect(place)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(VERSION_1)
    connection.close()


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Ledger]:
    write_version_1(tmp_path / "requests.sqlite")
    with Ledger(tmp_path / "requests.sqlite") as ledger:
        yield ledger


def test_an_old_ledger_keeps_all_it_had_and_gets_a_valid_trail(old: Ledger) -> None:
    first, second = old.requests("b")
    assert (first.id, first.clients, first.state, first.unlearned_round, first.ended_round) == (
        *("r1", (1, 2), "forgotten", 2, 4),
    )
    assert (first.arrived_at, first.actor, first.same_as, first.arrival) == (10.5, "", None, 1)
    assert (second.id, second.state, second.state_round, second.source, second.arrived_at) == (
        *("r2", "waiting", 2, "cli", 11.0),
    )
    assert [(p.round, p.plan, p.failed, p.answered) for p in old.plans("b")] == [
        (2, {"requests": ["r1"], "scale": 0.1}, {3: "lost"}, True),
        (3, {"requests": []}, {}, False),
    ]
    assert [(e.seq, e.branch, e.entry, e.to_state, e.at, e.clients, e.detail) for e in old.audit()] == [
        (1, "b", 1, "received", 10.5, (1, 2), "experiment"),
        (2, "other", 1, "received", 10.75, (3,), "cli"),
        (3, "b", 2, "received", 11.0, (3,), "cli"),
        (4, "b", 3, "scheduled", 12.0, None, ""),
        (5, "b", 4, "unlearning", 13.0, None, ""),
        (6, "b", 5, "waiting", 13.5, None, "client 3 failed"),
        (7, "b", 6, "recovering", 14.0, None, ""),
        (8, "b", 7, "forgotten", 15.0, None, "within epsilon"),
    ]
    assert [old.check_trail(branch) for branch in ("b", "other")] == [[], []]


def test_an_old_ledger_goes_on_as_a_new_one(old: Ledger) -> None:
    intake = Intake(old, "b", num_clients=5)
    assert intake.ask([1], source="cli", actor="operator:x").state == "duplicate"
    assert intake.ask([3], source="cli", actor="operator:x").same_as == "r2"
    old.transition("b", "r2", "withdrawn", round=3)
    assert old.check_trail("b") == []
    assert [e.seq for e in old.audit("b")][-3:] == [14, 15, 16], "numbers that were given out stay used up"
    other = old.export("b")
    old.load("copy", other)
    assert old.export("copy") == other and old.check_trail("copy") == []


def test_an_upgraded_file_has_the_tables_of_a_new_one(old: Ledger) -> None:
    tables = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
    with Ledger(":memory:") as new:
        assert [tuple(row) for row in old.store.rows(tables)] == [tuple(r) for r in new.store.rows(tables)]


def test_killed_before_any_statement_of_the_upgrade_the_next_opening_makes_it(tmp_path: Path) -> None:
    write_version_1(tmp_path / "old.sqlite")
    subprocess.run([sys.executable, SERVER, tmp_path, "opening"], env=ENVIRONMENT, check=True)
    left = sorted(tmp_path.glob("[0-9]*.sqlite"))
    assert len(left) > 40
    versions = []
    for place in left:
        connection = sqlite3.connect(place)
        versions += connection.execute("PRAGMA user_version").fetchone()
        connection.close()
    assert set(versions) == {1, 3}, "killed before the commit, it is an old one still"
    with Ledger(tmp_path / "old.sqlite") as upgraded:
        expected, trail = snapshot(upgraded), upgraded.audit()
        for place in left:
            with Ledger(place) as ledger:
                assert snapshot(ledger) == expected, place.stem
                assert ledger.audit() == trail


def test_many_may_open_an_old_file_at_once(tmp_path: Path) -> None:
    place = tmp_path / "requests.sqlite"
    write_version_1(place)
    barrier, errors = threading.Barrier(6), []

    def open_(client: int) -> None:
        barrier.wait()
        try:
            with Ledger(place) as ledger:
                Intake(ledger, "b", num_clients=20).ask([10 + client], source="cli", actor="operator:x")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=open_, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with Ledger(place) as ledger:
        assert len(ledger.requests("b")) == 8 and ledger.check_trail("b") == []


def test_a_file_that_cannot_be_upgraded_stays_as_it_was(tmp_path: Path) -> None:
    place = tmp_path / "requests.sqlite"
    write_version_1(place)
    connection = sqlite3.connect(place)
    connection.execute("UPDATE requests SET clients = 'three' WHERE id = 'r2'")
    connection.commit()
    before = list(connection.iterdump())
    with pytest.raises(LedgerError, match=r"requests\.sqlite"):
        Ledger(place)
    assert list(connection.iterdump()) == before
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    connection.close()
