"""Which process something is, so that another of the same machine can tell later that it has died.

A number alone does not say: it is given out again, and in another container it is another's. So the boot of the
system, the namespaces of the number and of the clock, and the moment at which the process began go with it.
"""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")


def identity() -> str:
    """Return what this process is, as words that end in number and start; "" where the system does not say."""
    number = os.getpid()
    start, place = _start(number), _place()
    return "" if start is None or place is None else f"{place} {number} {start}"


def is_dead(process: str) -> bool:
    """Whether a process is known to have ended; False also where that cannot be known from here.

    Parameters
    ----------
    process
        Its `identity`, or "".
    """
    place, _, last = process.rpartition(" ")
    place, _, number = place.rpartition(" ")
    if not place or place != _place() or not (number.isascii() and number.isdigit() and int(number) > 0):
        return False  # another machine's, another container's, or from before a restart of the system
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's: there is one of that number
        pass
    start = _start(int(number))
    return start is not None and (start != last or _has_ended(int(number)))


def _place() -> str | None:
    """Return the boot of the system and the namespaces of process numbers and of the clock."""
    try:
        # Where /proc is of another namespace than this process, it would tell of others under our numbers.
        own = (_PROC / "self/stat").read_text(errors="replace", encoding="utf-8").partition(" ")[0] == str(
            os.getpid()
        )
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        namespaces = [str((_PROC / "self/ns" / kind).readlink()) for kind in ("pid", "time")]
    except OSError:
        return None
    return " ".join([boot, *namespaces]) if own and boot else None


def _status(number: int) -> list[str]:
    """Return the fields of /proc/NUMBER/stat from the third, the state, on; none if they cannot be read."""
    try:
        text = (_PROC / str(number) / "stat").read_text(errors="replace", encoding="utf-8")
    except OSError:
        return []
    # The second field is a name in brackets, which may hold anything.
    return text.rpartition(")")[2].split()


def _start(number: int) -> str | None:
    """Return when a process began, in ticks since the system did; None if that cannot be read."""
    fields = _status(number)
    return fields[19] if len(fields) > 19 else None


def _has_ended(number: int) -> bool:
    """Whether a process is over, and only its parent has not asked for its exit code yet."""
    return _status(number)[:1] in (["Z"], ["X"])
