"""The desk behind the door: one thread with a ledger of its own, to which requests queue.

What waits is done together in one transaction: fifty requests that arrive at once cost one fsync, not fifty.
Nobody is told that something is recorded before it is on the disk.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fedunlearn import config
from fedunlearn.errors import RunError, UserError
from fedunlearn.requests import Intake, Ledger
from fedunlearn.runs.classes import classes_of_run

Answer = TypeVar("Answer")

TOGETHER = 64
"""Pieces of work in one transaction at most: meanwhile the server, which writes to the same file, waits."""
_RETRY = 2  # seconds
_RETRY_FULL = 60  # somebody has to make room first
_log = logging.getLogger(__name__)


class UnavailableError(Exception):
    """The ledger cannot be had just now; nothing was recorded unless the message says so.

    Attributes
    ----------
    retry_after : int
        Seconds after which it is worth asking again.
    """

    def __init__(self, message: str, retry_after: int = _RETRY) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotBegunError(UnavailableError):
    """No run has begun in the folder yet."""

    def __init__(self) -> None:
        super().__init__("no federation has started here yet; nothing was recorded", 30)


@dataclass(frozen=True)
class OpenLedger:
    """A run's ledger, as the desk's thread has it open.

    Attributes
    ----------
    folder : Path
        The run directory.
    """

    folder: Path
    ledger: Ledger
    intake: Intake


class _Job:
    """One piece of work and what came of it, which is told when the transaction is on the disk."""

    def __init__(self, work: Callable[[OpenLedger], Any]) -> None:
        self.future: Future[Any] = Future()
        self._work = work
        self._answer: Any = None
        self._error: Exception | None = None
        self._wanted: bool | None = None  # None: not looked into yet

    def run(self, opened: OpenLedger) -> None:
        """Do it, unless whoever asked has given up. What the file itself refuses is raised: it ends the turn."""
        if not self._still_wanted():
            return
        try:
            self._answer = self._work(opened)
        except Exception as error:
            if _from_sqlite(error):
                raise
            self._error = error

    def tell(self, failure: Exception | None = None) -> None:
        """Tell whoever asked what came of it, or that the turn failed."""
        if not self._still_wanted():
            return
        if (error := failure or self._error) is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(self._answer)

    def _still_wanted(self) -> bool:
        # From this moment on it cannot be given up any more.
        if self._wanted is None:
            self._wanted = self.future.set_running_or_notify_cancel()
        return self._wanted


class Desk:
    """A thread that works on a run's ledger.

    The ledger is opened when there is one, and again when its file was replaced, as ``run --fresh`` does: what
    is written to a file that has no name any more would be lost.

    Parameters
    ----------
    folder
        The run directory. It may still lack a run.
    writes
        Whether work is done inside a transaction. A desk that only reads never waits for those that write.
    waiting
        Pieces of work that may queue.
    patience
        Seconds until a piece of work that has not been begun is given up.
    """

    def __init__(self, folder: Path, *, writes: bool, waiting: int = 512, patience: float = 10.0) -> None:
        self.folder = folder
        self._writes = writes
        self._patience = patience
        self._queue: queue.Queue[_Job | None] = queue.Queue(waiting)
        self._opened: OpenLedger | None = None
        # A daemon: SQLite may wait half a minute for another writer, and the door must close at once.
        self._thread = threading.Thread(target=self._serve, name=f"desk-{writes=}", daemon=True)
        self._thread.start()

    async def do(self, work: Callable[[OpenLedger], Answer], *, patience: float | None = None) -> Answer:
        """Have the thread do something with the ledger and return what came of it.

        Parameters
        ----------
        patience
            Seconds, if others than the desk's.

        Raises
        ------
        UnavailableError
            There is no run yet, too much waits already, or the ledger could not be read or written in time.
        """
        job = _Job(work)
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            raise UnavailableError(
                "too many requests are waiting for the ledger; nothing was recorded"
            ) from None
        try:
            async with asyncio.timeout(self._patience if patience is None else patience):
                answer: Answer = await asyncio.wrap_future(job.future)
                return answer
        except TimeoutError:
            if job.future.cancelled():
                raise UnavailableError("the ledger is busy; nothing was recorded") from None
            raise UnavailableError(
                "the ledger is slow and may still record it; ask again with the same Idempotency-Key"
            ) from None

    def close(self, seconds: float = 5.0) -> None:
        """Finish what waits and stop, within some seconds."""
        try:
            self._queue.put(None, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(seconds)

    def _serve(self) -> None:
        while (job := self._queue.get()) is not None:
            if not self._turn(job):
                break
        if self._opened is not None:
            self._opened.ledger.close()

    def _turn(self, first: _Job) -> bool:
        """Do what waits, in one transaction; return False when the desk is to close."""
        jobs, open_ = [first], True
        try:
            opened = self._open()
            with self._transaction(opened):
                while len(jobs) < TOGETHER and not self._queue.empty():
                    if (job := self._queue.get()) is None:
                        open_ = False
                        break
                    jobs.append(job)
                for job in jobs:
                    job.run(opened)
            if not opened.ledger.store.lies_where_opened():
                raise UnavailableError("the run is being restarted; ask again")
            failure = None
        except Exception as error:
            failure = _in_words(error)
        for job in jobs:
            job.tell(failure)
        return open_

    def _transaction(self, opened: OpenLedger) -> AbstractContextManager[None]:
        return opened.ledger.batch() if self._writes else nullcontext()

    def _open(self) -> OpenLedger:
        if self._opened is not None:
            if self._opened.ledger.store.lies_where_opened():
                return self._opened
            self._opened.ledger.close()
            self._opened = None
        self._opened = open_ledger(self.folder)
        return self._opened


def open_ledger(folder: Path) -> OpenLedger:
    """Open the ledger of a live run.

    Raises
    ------
    NotBegunError
        There is no run in the folder yet.
    RunError
        It is not the run of a live federation, or its ledger cannot be opened.
    """
    if not (folder / "experiment.toml").is_file():
        raise NotBegunError
    try:
        experiment = config.load(folder / "experiment.toml")
    except UserError as error:
        raise RunError(str(error)) from None
    if not experiment.live:
        raise RunError(f"{folder}: belongs to an experiment with targets; the door needs one with [requests]")
    ledger = Ledger(folder / "requests.sqlite")
    intake = Intake(
        ledger,
        num_clients=experiment.federation.num_clients,
        task=experiment.data.task,
        num_classes=lambda: classes_of_run(folder, experiment),
    )
    return OpenLedger(folder, ledger, intake)


def _from_sqlite(error: BaseException) -> bool:
    return isinstance(error, sqlite3.Error) or isinstance(error.__cause__, sqlite3.Error)


def _disk_is_full(error: BaseException) -> bool:
    cause = error if isinstance(error, sqlite3.Error) else error.__cause__
    code = getattr(cause, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_FULL or getattr(error, "errno", None) == errno.ENOSPC


def _in_words(error: Exception) -> Exception:
    """Return what callers are told of a turn that failed; the log has the rest."""
    if isinstance(error, UnavailableError):
        return error
    _log.error("the ledger: %s", error)
    if _disk_is_full(error):
        return UnavailableError(
            "the disk is full; ask again with the same Idempotency-Key once there is room", _RETRY_FULL
        )
    if _from_sqlite(error) or isinstance(error, OSError | RunError):
        # After a failed fsync nobody knows what the disk holds.
        return UnavailableError("the ledger is unavailable; ask again with the same Idempotency-Key")
    return error
