"""The roster's file: written whole or not at all, changed by one at a time, read again when it has changed."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Callable
from pathlib import Path

from fedunlearn.deployment.roster import Roster
from fedunlearn.durable import move_durably, write_synced
from fedunlearn.errors import UserError

_log = logging.getLogger(__name__)


def write(path: Path, roster: Roster) -> None:
    """Write the file durably, readable and writable by its owner only."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)  # of a writer that was killed; nobody else is here, see `edit`
    write_synced(temporary, roster.to_toml().encode(), mode=0o600, new=True)
    move_durably(temporary, path)


def edit(path: Path, change: Callable[[Roster], Roster], *, new: bool = False) -> Roster:
    """Change a roster file while nobody else does, and return what it holds now.

    Parameters
    ----------
    new
        The file must not be there yet; otherwise it must.

    Raises
    ------
    UserError
        The file is (not) there, is wrong, or would be wrong afterwards; then it stays as it was.
    """
    if not path.parent.is_dir():
        raise UserError(f"{path}: its folder does not exist; make it first")
    # A file of its own: the roster itself is replaced by every change, and a lock on it with it.
    with (path.parent / f".{path.name}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if new and path.exists():
            raise UserError(
                f"{path}: already exists; add to it with `fedunlearn roster add-client` and the like"
            )
        roster = change(Roster() if new else Roster.load(path))
        Roster.loads(roster.to_toml(), str(path))
        write(path, roster)
    return roster


class RosterFile:
    """A roster that follows its file while a server runs: a token that was taken out opens nothing any more.

    A file that can no longer be read, or is wrong, leaves the last good roster in force; `problem` says so.

    Parameters
    ----------
    path
        Must be readable and right at the start.

    Attributes
    ----------
    problem : str or None
        Why the file as it is now is not what is in force.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        self._seen = self._stamp()
        self._roster = Roster.load(path)

    def current(self) -> Roster:
        """Return the roster, read again if its file has changed. Costs one ``stat`` otherwise."""
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            try:
                self._roster = Roster.load(self.path)
                self.problem = None
                _log.info("%s: read again", self.path)
            except UserError as error:
                self.problem = f"{error}; the previous roster stays in force"
                _log.error("%s", self.problem)
        return self._roster

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size
