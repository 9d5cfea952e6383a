"""Whether the door can take requests: the ledger can be read and written, the disk has room, the roster is right."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

from fedunlearn.deployment.roster_file import RosterFile
from fedunlearn.door.ledger_thread import Desk, NotBegunError, UnavailableError
from fedunlearn.door.schemas import Health

LEAST_FREE = 64 * 1024 * 1024
"""Bytes that the ledger's disk must have left."""
_PATIENCE = 3.0  # seconds; whoever asks, asks often
_SECONDS = 1.0  # for which a result stands: a flood of questions costs the ledger nothing


class Checkup:
    """Looks at the ledger, its disk and the roster when asked, once a second at most.

    What it says is for everybody's eyes: neither paths nor numbers.
    """

    def __init__(self, folder: Path, roster: RosterFile, reader: Desk, writer: Desk) -> None:
        self._folder = folder
        self._roster = roster
        self._reader = reader
        self._writer = writer
        self._lock = asyncio.Lock()
        self._until = 0.0
        self._last = Health(status="idle", problems=[])

    async def result(self) -> Health:
        """Return what was found now or within the last second."""
        async with self._lock:
            if time.monotonic() >= self._until:
                self._last = await self._look()
                self._until = time.monotonic() + _SECONDS
        return self._last

    async def _look(self) -> Health:
        problems: list[str] = []
        begun = True
        for desk, doing in ((self._reader, "read"), (self._writer, "written")):
            try:
                await desk.do(lambda _: None, patience=_PATIENCE)
            except NotBegunError:
                begun = False
            except UnavailableError:
                problems.append(f"the ledger cannot be {doing}")
        if not self._folder.is_dir():
            problems.append("the run directory is gone")
        elif shutil.disk_usage(self._folder).free < LEAST_FREE:
            problems.append("the disk is almost full")
        failing = bool(problems)
        self._roster.current()
        if self._roster.problem is not None:  # the door goes on; a restart would not get this far
            problems.append("the roster cannot be read again; the previous one stays in force")
        return Health(status="failing" if failing else "ok" if begun else "idle", problems=problems)
