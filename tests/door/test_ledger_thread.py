"""The ledger behind the door: busy, full, not there yet, replaced or gone. What is acknowledged is kept."""

import asyncio
import dataclasses
import shutil
import sqlite3
import threading
from contextlib import contextmanager

import pytest

from fedunlearn.door import health
from fedunlearn.door.ledger_thread import Desk, NotBegunError, UnavailableError
from fedunlearn.requests import LIVE_BRANCH, Ledger
from tests.door.served import EXPERIMENT, GENEROUS, eventually, place, served

HASTY = dataclasses.replace(GENEROUS, ledger_seconds=0.3)


@contextmanager
def locked(folder):
    """Hold the ledger's write lock, as a server does that is slow with a commit."""
    connection = sqlite3.connect(folder / "requests.sqlite", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def requests(at):
    with Ledger(at.folder / "requests.sqlite") as ledger:
        return ledger.requests(LIVE_BRANCH)


def test_a_busy_ledger_is_503_and_what_was_refused_is_never_recorded(at) -> None:
    with served(at, HASTY) as knock:

        def ask(client: int):
            headers = {"Idempotency-Key": "k"}
            return knock("POST", "/requests", str(client), {"clients": [client]}, headers=headers)

        # Hasty as it is, the door may find a loaded machine's ledger busy by itself: hence "eventually".
        eventually(lambda: ask(3).status in (200, 202))
        with locked(at.folder):
            busy = ask(4)
            assert busy.status == 503 and "nothing was recorded" in busy.error
            assert int(busy.headers["Retry-After"]) >= 1
            eventually(
                lambda: knock("GET", "/requests", "3").status == 200
            )  # readers do not wait for writers
        # The desk was waiting for the lock with the refused request in hand; it must have let go of it.
        eventually(lambda: ask(5).status in (200, 202))
    assert {record.clients for record in requests(at)} == {(3,), (5,)}


def test_too_many_that_wait_are_sent_away_at_once(at) -> None:
    async def crowd() -> list[str]:
        desk = Desk(at.folder, writes=True, waiting=2, patience=20)
        begun, go_on = threading.Event(), threading.Event()

        def hold(_) -> None:
            begun.set()
            go_on.wait(20)

        first = asyncio.create_task(desk.do(hold))
        await asyncio.to_thread(begun.wait, 20)
        others = [asyncio.create_task(desk.do(lambda _: None)) for _ in range(5)]
        await asyncio.sleep(0)
        go_on.set()
        results = await asyncio.gather(first, *others, return_exceptions=True)
        desk.close()
        return [str(result) for result in results]

    results = asyncio.run(crowd())
    assert results.count("None") == 3
    assert sum("too many" in result for result in results) == 3


def test_a_full_disk_is_503_and_the_door_comes_back_when_there_is_room(at, monkeypatch) -> None:
    opened = []
    prepare = Ledger.__init__

    def remembered(self, *args, **kwargs) -> None:
        prepare(self, *args, **kwargs)
        opened.append(self)

    monkeypatch.setattr(Ledger, "__init__", remembered)
    with served(at) as knock:
        assert knock("POST", "/requests", "3", {"clients": [3]}).status == 202
        (ledger,) = opened
        (row,) = ledger.store.rows("PRAGMA page_count")
        ledger.store.rows(f"PRAGMA max_page_count = {row[0]}")
        answers = []
        while [answer.status for answer in answers[-3:]] != [503] * 3:
            headers = {"Idempotency-Key": str(len(answers))}
            answers.append(knock("POST", "/requests", "4", {"clients": [4]}, headers=headers))
            assert len(answers) < 500, "the disk never became full"
        taken, refused = ([a for a in answers if a.status == status] for status in (202, 503))
        assert len(taken) + len(refused) == len(answers)
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
        assert {answer.error.partition(";")[0] for answer in refused} == {"the disk is full"}
        ledger.store.rows("PRAGMA max_page_count = 1000000")
        again = knock("POST", "/requests", "4", {"clients": [4]}, headers=headers)
        assert again.status == 202
    assert len(requests(at)) == 1 + len(taken) + 1
    with Ledger(at.folder / "requests.sqlite") as book:
        assert book.check_trail(LIVE_BRANCH) == []


def test_before_a_run_has_begun_the_door_says_so_and_then_opens(tmp_path) -> None:
    at = place(tmp_path, begun=False)
    with served(at) as knock:
        early = knock("POST", "/requests", "3", {"clients": [3]})
        assert early.status == 503 and "no federation has started" in early.error
        assert early.headers["Retry-After"] == "30"
        assert knock("GET", "/health").json == {"status": "idle", "problems": []}
        assert list(at.folder.iterdir()) == []
        (at.folder / "experiment.toml").write_text(EXPERIMENT)
        assert knock("POST", "/requests", "3", {"clients": [3]}).status == 202


def test_an_experiment_with_targets_has_no_door(tmp_path) -> None:
    at = place(tmp_path, begun=False)
    text = EXPERIMENT.replace("requests = {}", "targets = [[0]]").replace("reference-accuracy", "max-rounds")
    (at.folder / "experiment.toml").write_text(text)
    with served(at) as knock:
        assert knock("POST", "/requests", "3", {"clients": [3]}).status == 503
        health = knock("GET", "/health")
        assert (health.status, health.json["status"]) == (503, "failing")
    assert not (at.folder / "requests.sqlite").exists()


def test_a_run_that_was_started_afresh_gets_the_requests(at) -> None:
    """`run --fresh` replaces the ledger's file; what went on being written to the old one would be lost."""
    with served(at) as knock:
        assert knock("POST", "/requests", "3", {"clients": [3]}).status == 202
        for path in at.folder.iterdir():
            path.unlink()
        (at.folder / "experiment.toml").write_text(EXPERIMENT.replace("num-clients = 8", "num-clients = 4"))
        answer = knock("POST", "/requests", "alice", {"clients": [2]})
        assert answer.status == 202
        assert knock("POST", "/requests", "alice", {"clients": [5]}).status == 422
    assert [record.clients for record in requests(at)] == [(2,)]


def test_what_was_committed_to_a_file_that_is_gone_is_not_acknowledged(at) -> None:
    async def lose() -> None:
        desk = Desk(at.folder, writes=True)
        try:
            await desk.do(lambda opened: (at.folder / "requests.sqlite").unlink())
        finally:
            await asyncio.to_thread(desk.close)

    with pytest.raises(UnavailableError, match="ask again"):
        asyncio.run(lose())


def test_one_that_fails_does_not_spoil_those_beside_it(at) -> None:
    async def together() -> list[object]:
        desk = Desk(at.folder, writes=True)
        go_on = threading.Event()

        def ask(opened, client: int):
            return opened.intake.ask([client], source="http", actor="operator:alice").clients

        first = asyncio.create_task(desk.do(lambda _: go_on.wait(20)))
        rest = [asyncio.create_task(desk.do(lambda o, c=c: ask(o, c))) for c in (1, 99, 2)]
        await asyncio.sleep(0)
        go_on.set()
        results = await asyncio.gather(first, *rest, return_exceptions=True)
        await asyncio.to_thread(desk.close)
        return results

    results = asyncio.run(together())
    assert (results[1], results[3]) == ((1,), (2,)) and "99" in str(results[2])
    assert [record.clients for record in requests(at)] == [(1,), (2,)]


def test_an_error_of_the_file_ends_the_turn_for_all_in_it(at) -> None:
    """Nobody can tell what the file did with the others: none is acknowledged, and none is kept."""

    async def together() -> list[object]:
        desk = Desk(at.folder, writes=True)
        go_on = threading.Event()

        def ask(opened):
            return opened.intake.ask([1], source="http", actor="operator:alice")

        first = asyncio.create_task(desk.do(lambda _: go_on.wait(20)))
        rest = [
            asyncio.create_task(desk.do(work))
            for work in (ask, lambda opened: opened.ledger.store.rows("SELECT * FROM nowhere"), ask)
        ]
        await asyncio.sleep(0)
        go_on.set()
        results = await asyncio.gather(first, *rest, return_exceptions=True)
        await asyncio.to_thread(desk.close)
        return results[1:]

    assert [type(result) for result in asyncio.run(together())] == [UnavailableError] * 3
    assert requests(at) == []


def test_closing_finishes_what_waits(at) -> None:
    async def close() -> list[object]:
        desk = Desk(at.folder, writes=True)
        tasks = [asyncio.create_task(desk.do(lambda _, n=n: n)) for n in range(100)]
        await asyncio.sleep(0)
        await asyncio.to_thread(desk.close)
        return await asyncio.gather(*tasks)

    assert asyncio.run(close()) == list(range(100))


def test_a_desk_without_a_run_says_so(tmp_path) -> None:
    async def ask() -> None:
        desk = Desk(tmp_path, writes=False)
        try:
            await desk.do(lambda _: None)
        finally:
            await asyncio.to_thread(desk.close)

    with pytest.raises(NotBegunError):
        asyncio.run(ask())


# -- health -----------------------------------------------------------------------------------------------------


def test_health_tells_what_fails_and_no_more(at, monkeypatch) -> None:
    monkeypatch.setattr(health, "_PATIENCE", 0.5)
    monkeypatch.setattr(health, "_SECONDS", 0.0)
    with served(at) as knock:

        def says(status: int, state: str, *problems: str) -> None:
            # Not at once: on a loaded machine half a second may be too little for a ledger that is well.
            def holds() -> bool:
                answer = knock("GET", "/health")
                return (answer.status, answer.json) == (status, {"status": state, "problems": [*problems]})

            eventually(holds)

        says(200, "ok")
        with locked(at.folder):
            says(503, "failing", "the ledger cannot be written")
        says(200, "ok")
        monkeypatch.setattr(health, "LEAST_FREE", 2**62)
        says(503, "failing", "the disk is almost full")
        monkeypatch.setattr(health, "LEAST_FREE", 0)
        shutil.rmtree(at.folder)
        says(503, "failing", "the run directory is gone")
