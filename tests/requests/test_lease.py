"""The lease: one server at a time, and whoever lost it writes nothing any more."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import fedunlearn
from fedunlearn.requests import FencedError, Intake, LeaseHeldError, Ledger, LedgerError, Move, SignedHead

RIVAL = Path(__file__).with_name("rival_server.py")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(fedunlearn.__file__).parents[1])}


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(tmp_path: Path, clock: Clock) -> Iterator[Callable[[], Ledger]]:
    """Open the one file again and again, as several processes would."""
    ledgers: list[Ledger] = []

    def open_() -> Ledger:
        ledgers.append(Ledger(tmp_path / "requests.sqlite", clock=clock))
        return ledgers[-1]

    yield open_
    for ledger in ledgers:
        ledger.close()


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def test_a_lease_is_anothers_until_its_term_is_over(opened: Callable[[], Ledger], clock: Clock) -> None:
    first, second = opened(), opened()
    assert first.lease("b") is None
    lease = first.take_lease("b", "run-1", seconds=10.0)
    assert (lease.token, lease.holder, lease.lost) == (1, "run-1", False)
    for passed in (0.0, 9.9):
        clock.now = 1000.0 + passed
        with pytest.raises(LeaseHeldError, match="run-1 serves 'b': stop it first"):
            second.take_lease("b", "run-2")
    lease.renew()
    clock.now += 9.9
    with pytest.raises(LeaseHeldError):
        second.take_lease("b", "run-2")
    assert second.take_lease("another branch", "run-2").token == 1
    clock.now += 0.2
    assert second.take_lease("b", "run-2").token == 2
    assert [(s.token, s.holder, s.taken_at) for s in first.servers("b")] == [
        (1, "run-1", 1000.0),
        (2, "run-2", pytest.approx(1020.0)),
    ]
    found = first.lease("b")
    assert found is not None and (found.token, found.holder, found.seconds) == (2, "run-2", 15.0)


def test_a_lease_that_was_released_is_free_at_once(opened: Callable[[], Ledger]) -> None:
    first, second = opened(), opened()
    lease = first.take_lease("b", "run-1")
    lease.release()
    lease.release()
    assert second.take_lease("b", "run-2").token == 2
    lease.release()  # another's by now: stays as it is
    with pytest.raises(LeaseHeldError):
        opened().take_lease("b", "run-3")


def test_a_server_that_was_restarted_takes_over_from_itself(opened: Callable[[], Ledger]) -> None:
    before, after = opened(), opened()
    before.take_lease("b", "run-1")
    assert after.take_lease("b", "run-1").token == 2
    with pytest.raises(FencedError):
        before.submit("b", request_id="r", clients=[1])


WRITES: dict[str, Callable[[Ledger], object]] = {
    "submit": lambda ledger: ledger.submit("b", request_id="new", clients=[1]),
    "submit elsewhere": lambda ledger: ledger.submit("another", request_id="new", clients=[1]),
    "commit_plan": lambda ledger: ledger.commit_plan("b", 9, {"requests": []}),
    "record_failures": lambda ledger: ledger.record_failures("b", 1, {1: "lost"}),
    "transition": lambda ledger: ledger.transition("b", "r", "recovering", round=1),
    "transition_many": lambda ledger: ledger.transition_many("b", [Move("r", "recovering", 1)]),
    "nothing to do": lambda ledger: ledger.transition_many("b", []),
    "reconcile": lambda ledger: ledger.reconcile("b", {"r": ("forgotten", 2)}),
    "load": lambda ledger: ledger.load("copy", ledger.export("b")),
    "note_measures": lambda ledger: ledger.note_measures("b", "r", "before", {}),
    "add_signed_head": lambda ledger: ledger.add_signed_head(
        "b", SignedHead(ledger.head("b").entry, ledger.head("b").hash, 0.0, "k", "s")
    ),
    "ask": lambda ledger: Intake(ledger, "b", num_clients=3).ask([2], source="cli", actor="operator:x"),
    "take_lease": lambda ledger: ledger.take_lease("b", "run-2"),
    "fenced": lambda ledger: ledger.fenced().__enter__(),
    "batch": lambda ledger: ledger.batch().__enter__(),
}


@pytest.mark.parametrize("write", WRITES)
def test_who_lost_the_lease_cannot_write(write: str, opened: Callable[[], Ledger], clock: Clock) -> None:
    stale, other, door = opened(), opened(), opened()
    lease = stale.take_lease("b", "run-1")
    stale.submit("b", request_id="r", clients=[0])
    stale.commit_plan("b", 1, {"requests": ["r"]})
    stale.transition("b", "r", "unlearning", round=1)
    clock.now += 16.0
    lease.check()  # late, but nobody has come
    other.take_lease("b", "run-2")
    before = {name: other.export(name) for name in other.branches()}, other.lease("b")
    with pytest.raises(FencedError, match=r"is now with run-2 \(token 2\): run-1 \(token 1\) stops"):
        WRITES[write](stale)
    assert lease.lost
    assert ({name: other.export(name) for name in other.branches()}, other.lease("b")) == before
    WRITES["commit_plan"](door)  # no server: writes as ever
    WRITES["transition"](other)
    assert stale.request("b", "r").state == "recovering", "reading is open to all"


def test_a_write_within_the_term_and_after_it_is_allowed_while_nobody_has_come(
    opened: Callable[[], Ledger], clock: Clock
) -> None:
    ledger = opened()
    lease = ledger.take_lease("b", "run-1", seconds=1.0)
    for _ in range(3):
        clock.now += 100.0
        ledger.submit("b", request_id=f"r{clock.now}", clients=[1])
    lease.renew()
    with pytest.raises(LeaseHeldError):
        opened().take_lease("b", "run-2")


def test_while_fenced_nobody_can_take_over_and_the_term_begins_anew(
    opened: Callable[[], Ledger], clock: Clock
) -> None:
    server, rival = opened(), opened()
    server.take_lease("b", "run-1", seconds=10.0)
    clock.now += 11.0  # the rival may, from here on
    outcomes: list[object] = []

    def take() -> None:
        try:
            outcomes.append(rival.take_lease("b", "run-2"))
        except LeaseHeldError as error:
            outcomes.append(error)

    thread = threading.Thread(target=take)
    with server.fenced():
        thread.start()
        thread.join(0.3)
        assert thread.is_alive() and not outcomes
    thread.join()
    assert isinstance(outcomes[0], LeaseHeldError)
    server.submit("b", request_id="r", clients=[1])


def test_a_fenced_block_that_fails_writes_nothing(opened: Callable[[], Ledger]) -> None:
    ledger = opened()
    ledger.take_lease("b", "run-1")
    with pytest.raises(OSError, match="no space"), ledger.fenced():
        ledger.submit("b", request_id="r", clients=[1])
        raise OSError("no space")
    assert ledger.requests("b") == []


def test_without_a_lease_fenced_is_a_batch(opened: Callable[[], Ledger]) -> None:
    ledger = opened()
    opened().take_lease("b", "run-1")
    with ledger.fenced():
        ledger.submit("b", request_id="r", clients=[1])
    assert ledger.request("b", "r").state == "received"


def test_a_lease_is_kept_alive_while_the_block_lasts(opened: Callable[[], Ledger], clock: Clock) -> None:
    server, rival = opened(), opened()
    lease = server.take_lease("b", "run-1", seconds=0.06)

    def renewed_at() -> float:
        found = rival.lease("b")
        assert found is not None
        return found.renewed_at

    with lease.keep_alive():
        for later in (2000.0, 3000.0):
            clock.now = later
            until(lambda now=later: renewed_at() == now)
    threads = {thread.name for thread in threading.enumerate()}
    assert "lease" not in threads
    clock.now = 4000.0
    rival.take_lease("b", "run-2")
    with lease.keep_alive():
        until(lambda: lease.lost)
        until(lambda: "lease" not in {thread.name for thread in threading.enumerate()})


def test_a_full_disk_does_not_end_the_keeping_alive(opened: Callable[[], Ledger], clock: Clock) -> None:
    server = opened()
    lease = server.take_lease("b", "run-1", seconds=0.03)
    original, failures = lease.renew, []

    def failing() -> None:
        if len(failures) < 3:
            failures.append(1)
            raise LedgerError("database or disk is full")
        original()

    lease.renew = failing  # type: ignore[method-assign]
    with lease.keep_alive():
        clock.now = 2000.0
        until(lambda: server.lease("b").renewed_at == 2000.0)
    assert len(failures) == 3


def test_a_lease_renewed_under_a_clock_that_was_ahead_is_watched_out(
    opened: Callable[[], Ledger], clock: Clock
) -> None:
    dead, heir = opened(), opened()
    dead.take_lease("b", "run-1", seconds=0.2)
    clock.now -= 1e6  # the clock was set back: by it, the lease lasts for days
    with pytest.raises(LeaseHeldError):
        heir.take_lease("b", "run-2", wait=0.0)
    assert heir.take_lease("b", "run-2", wait=30.0).token == 2


def test_of_two_leases_of_one_ledger_the_earlier_can_do_nothing(opened: Callable[[], Ledger]) -> None:
    ledger = opened()
    earlier = ledger.take_lease("b", "run-1")
    later = ledger.take_lease("b", "run-1")
    assert (earlier.token, later.token) == (1, 2)
    earlier.release()
    with pytest.raises(FencedError):
        earlier.renew()
    with pytest.raises(LeaseHeldError):
        opened().take_lease("b", "run-2")
    later.renew()
    ledger.submit("b", request_id="r", clients=[1])


def test_tokens_grow_even_where_the_lease_itself_was_deleted(opened: Callable[[], Ledger]) -> None:
    ledger = opened()
    ledger.take_lease("b", "run-1").renew()
    opened().store.rows("DELETE FROM leases")
    with pytest.raises(FencedError, match="is now with nobody"):
        ledger.submit("b", request_id="r", clients=[1])
    assert opened().take_lease("b", "run-2").token == 2


def test_giving_back_what_cannot_be_written_is_no_error(opened: Callable[[], Ledger]) -> None:
    ledger = opened()
    lease = ledger.take_lease("b", "run-1")
    ledger.close()
    lease.release()
    with pytest.raises(LeaseHeldError):
        opened().take_lease("b", "run-2")


def test_waiting_ends_when_the_lease_is_released(opened: Callable[[], Ledger]) -> None:
    first, second = opened(), opened()
    lease = first.take_lease("b", "run-1", seconds=1000.0)
    tokens: list[int] = []
    thread = threading.Thread(target=lambda: tokens.append(second.take_lease("b", "run-2", wait=30.0).token))
    thread.start()
    lease.release()
    thread.join()
    assert tokens == [2]


@pytest.mark.parametrize(("holder", "seconds"), [("", 1.0), ("x", 0.0), ("x", -1.0), ("x", float("nan"))])
def test_a_lease_needs_a_holder_and_a_term(holder: str, seconds: float, opened: Callable[[], Ledger]) -> None:
    with pytest.raises(LedgerError, match="needs a holder's name and a term > 0 s"):
        opened().take_lease("b", holder, seconds=seconds)


def test_a_ledger_put_back_from_a_backup_does_not_revive_a_stale_server(
    tmp_path: Path, opened: Callable[[], Ledger], clock: Clock
) -> None:
    backup = tmp_path / "backup.sqlite"
    opened().submit("b", request_id="r", clients=[1])
    opened().store.rows(f"VACUUM INTO '{backup}'")
    stale = opened()
    stale.take_lease("b", "run-1")
    with sqlite3.connect(backup) as old, sqlite3.connect(tmp_path / "requests.sqlite") as place:
        old.backup(place)
    clock.now += 100.0
    assert opened().take_lease("b", "run-2").token == 1, "the same token again"
    with pytest.raises(FencedError):
        stale.submit("b", request_id="s", clients=[1])


def test_a_file_that_was_replaced_is_written_by_nobody_who_has_it_open(
    tmp_path: Path, opened: Callable[[], Ledger]
) -> None:
    server, door = opened(), opened()
    server.take_lease("b", "run-1")
    for path in tmp_path.glob("requests.sqlite*"):
        path.unlink()
    with pytest.raises(FencedError, match="was replaced while run-1 served 'b'"), server.fenced():
        pytest.fail("entered")
    with pytest.raises(LedgerError, match="was removed or replaced meanwhile; nothing was recorded"):
        door.submit("b", request_id="r", clients=[1])
    opened()
    with pytest.raises(FencedError):
        server.submit("b", request_id="r", clients=[1])
    with pytest.raises(LedgerError, match="removed or replaced"):
        door.submit("b", request_id="r", clients=[1])


def test_a_ledger_opened_by_a_relative_path_follows_no_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with Ledger("requests.sqlite") as ledger:
        ledger.take_lease("b", "run-1")
        monkeypatch.chdir(tmp_path / "elsewhere")
        ledger.submit("b", request_id="r", clients=[1])
    with Ledger(tmp_path / "requests.sqlite") as ledger:
        assert [r.id for r in ledger.requests("b")] == ["r"]


def test_of_servers_in_processes_one_writes_and_a_paused_one_stops_itself(tmp_path: Path) -> None:
    """Freeze the server of the moment again and again: each time another goes on, and the frozen one finds out."""
    servers = {
        name: subprocess.Popen(
            [sys.executable, RIVAL, tmp_path, name], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
        )
        for name in ("x", "y", "z")
    }
    frozen: list[int] = []
    try:
        with Ledger(tmp_path / "requests.sqlite") as reader:
            begun = 0
            for _ in range(3):
                until(lambda begun=begun: reader.last_round("b") > begun + 3)
                # Between two transactions, lest everybody wait for its lock. All its threads have stopped only when
                # the system says so.
                with reader.batch():
                    server = reader.servers("b")[-1]
                    process = servers[server.holder[0]]
                    process.send_signal(signal.SIGSTOP)
                    os.waitpid(process.pid, os.WUNTRACED)
                frozen.append(server.token)
                until(lambda token=server.token: reader.servers("b")[-1].token > token)
                begun = reader.last_round("b")
                process.send_signal(signal.SIGCONT)
            until(lambda: reader.last_round("b") > begun + 3)
            (tmp_path / "stop").touch()
            said = {
                line
                for process in servers.values()
                for line in process.communicate(timeout=60)[0].split("\n")
            }
            assert [process.returncode for process in servers.values()] == [0, 0, 0]
            assert {f"fenced {token}" for token in frozen} <= said
            lines = [tuple(map(int, line.split())) for line in (tmp_path / "log.txt").open()]
            assert lines == [(p.round, p.plan["by"]) for p in reader.plans("b")], (
                "nothing written twice or by two"
            )
            tokens = [token for _, token in lines]
            assert tokens == sorted(tokens) and set(frozen) <= set(tokens) <= {
                s.token for s in reader.servers("b")
            }
    finally:
        for process in servers.values():
            process.kill()
            process.communicate()
