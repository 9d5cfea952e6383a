"""Telling a lack of memory from every other failure, wherever it happened.

Allocators fail with exceptions of many types, and those of clients reach the server as text, through threads, Ray
or Flower's messages alike. So it is the text that is looked at. A client that has too little memory is no client
that failed: the same settings would fail again, so the run ends, whatever the quorum.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fedunlearn.errors import OutOfMemoryError

# In a line that is no source line of a traceback, which are indented: PyTorch's and Python's types, PyTorch's
# allocator on processors, C++'s, CUDA's and its libraries', and the system's.
_SHORTAGE = re.compile(
    r"^(?!\s).*(OutOfMemoryError|MemoryError|DefaultCPUAllocator|std::bad_alloc|[Oo]ut of memory\b(?!, killed)"
    r"|_STATUS_ALLOC_FAILED|Cannot allocate memory|ould not create a memory)",
    re.MULTILINE,
)
_ASKED_FOR = re.compile(r"(?:tried|unable) to allocate ([\d.]+ ?[a-zA-Z]+)", re.IGNORECASE)


def is_shortage(report: str) -> bool:
    """Whether a traceback, or what an engine reports of a client, says that memory ran out."""
    return _SHORTAGE.search(report) is not None


def stop_if_out_of_memory(failed: Mapping[int, str], round: int) -> None:
    """End the run if a client failed for want of memory.

    Parameters
    ----------
    failed
        Client → why its answer is missing.
    round
        In which it was asked.

    Raises
    ------
    OutOfMemoryError
        With one line that names the client.
    """
    for client, why in failed.items():
        if is_shortage(why):
            raise OutOfMemoryError(_told(f"client {client}, round {round}", why), during="training")


@contextmanager
def naming_shortage(doing: str, during: str = "") -> Iterator[None]:
    """Say what was being done when memory ran out; other exceptions pass, and so does a shortage already named.

    Parameters
    ----------
    doing
        For the user, such as "evaluation, round 3".
    during
        See :class:`~fedunlearn.errors.OutOfMemoryError`.

    Raises
    ------
    OutOfMemoryError
        In the place of whatever the allocator raised.
    """
    try:
        yield
    except OutOfMemoryError:
        raise
    except Exception as error:
        report = "".join(traceback.format_exception_only(error))
        if not is_shortage(report):
            raise
        raise OutOfMemoryError(_told(doing, report), during=during) from error


def _told(doing: str, report: str) -> str:
    asked_for = _ASKED_FOR.search(report)
    return f"{doing}: out of memory" + (f" (asked for {asked_for[1]})" if asked_for else "")
