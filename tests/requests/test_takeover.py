"""Who takes over when: at once from a process of this machine that is known to have died, else after the term."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedunlearn.requests import FencedError, LeaseHeldError, Ledger, processes

SERVER = """
import sys, signal, time
from fedunlearn.requests import Ledger
with Ledger(sys.argv[1]) as ledger:
    lease = ledger.take_lease("b", "first", seconds=3600.0)
    with lease.keep_alive():
        print("serves", flush=True)
        sys.stdin.readline()
    lease.release()
"""


@contextmanager
def server(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "serves\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None], ids=["killed", "told to end", "done"])
def test_after_a_server_has_died_the_next_takes_over_at_once(
    end: signal.Signals | None, tmp_path: Path
) -> None:
    with Ledger(tmp_path / "l.sqlite") as heir, server(tmp_path / "l.sqlite") as process:
        with pytest.raises(LeaseHeldError):
            heir.take_lease("b", "second")
        assert heir.served("b")
        if end is None:
            process.communicate("\n")
        else:
            process.send_signal(end)
            process.wait()
        assert not heir.served("b")
        assert heir.take_lease("b", "second").token == 2


def test_a_server_that_was_stopped_is_waited_for_and_fenced_once_it_goes_on(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as heir, server(tmp_path / "l.sqlite") as process:
        with heir.batch():  # not in the middle of a write of its own
            process.send_signal(signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)
        with pytest.raises(LeaseHeldError):
            heir.take_lease("b", "second", wait=0.3)
        process.kill()
        process.wait()
        assert heir.take_lease("b", "second").token == 2


@pytest.mark.parametrize("step", [-1e6, 1e6])
def test_a_step_of_the_clock_does_not_keep_the_heir_of_a_dead_server_waiting(
    step: float, tmp_path: Path
) -> None:
    with server(tmp_path / "l.sqlite") as process:
        process.kill()
        process.wait()
    with Ledger(tmp_path / "l.sqlite", clock=lambda: time.time() + step) as heir:
        assert not heir.served("b")
        assert heir.take_lease("b", "second").token == 2


def doubtful(path: Path, process: str) -> None:
    """Have a lease in the file whose holder is such a process."""
    with Ledger(path) as ledger:
        ledger.take_lease("b", "first", seconds=3600.0)
        ledger.store.rows("UPDATE leases SET process = ?", process)


def test_a_number_that_another_process_has_by_now_does_not_keep_the_heir_waiting(tmp_path: Path) -> None:
    place, start = processes.identity().rsplit(" ", 1)
    doubtful(tmp_path / "l.sqlite", f"{place} {int(start) - 1}")
    with Ledger(tmp_path / "l.sqlite") as heir:
        assert heir.take_lease("b", "second").token == 2


def test_a_holder_in_another_container_under_the_same_number_is_waited_for(tmp_path: Path) -> None:
    boot, namespace, clock, number, start = processes.identity().split(" ")
    for there in (
        f"{boot} pid:[4] {clock} {number} {start}",
        f"{boot} pid:[4] {clock} 999999999 1",
        f"another-boot {namespace} {clock} 999999999 1",
        "",
    ):
        doubtful(tmp_path / f"{hash(there)}.sqlite", there)
        with Ledger(tmp_path / f"{hash(there)}.sqlite") as heir:
            assert heir.served("b")
            with pytest.raises(LeaseHeldError):
                heir.take_lease("b", "second")


def test_who_was_taken_for_dead_and_is_not_writes_nothing_any_more(tmp_path: Path) -> None:
    """Should the system ever tell otherwise than it is, there are not two writers either."""
    with Ledger(tmp_path / "l.sqlite") as ledger, Ledger(tmp_path / "l.sqlite") as heir:
        ledger.take_lease("b", "first", seconds=3600.0)
        place, start = processes.identity().rsplit(" ", 1)
        heir.store.rows("UPDATE leases SET process = ?", f"{place} {int(start) - 1}")
        heir.take_lease("b", "second")
        with pytest.raises(FencedError):
            ledger.submit("b", request_id="r", clients=[1])


def test_a_live_holder_keeps_its_lease_though_the_clock_steps_back(tmp_path: Path) -> None:
    now = [1000.0]
    with (
        Ledger(tmp_path / "l.sqlite", clock=lambda: now[0]) as ledger,
        Ledger(tmp_path / "l.sqlite", clock=lambda: now[0]) as heir,
    ):
        lease = ledger.take_lease("b", "first", seconds=10.0)
        now[0] -= 500.0
        with pytest.raises(LeaseHeldError):
            heir.take_lease("b", "second")
        lease.renew()
        now[0] += 9.0
        with pytest.raises(LeaseHeldError):
            heir.take_lease("b", "second")
