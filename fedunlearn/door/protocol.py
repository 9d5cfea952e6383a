"""The door's side of one connection: uvicorn's, with bounds on what a slow, greedy or broken peer may do to it."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from fedunlearn.door.admission import Admission, Visitor
from fedunlearn.door.limits import Limits

_UNREAD_SECONDS = 30.0
"""How long a peer may leave an answer lying."""


class DoorProtocol(H11Protocol):
    """One connection, closed when the next request's head is not whole in time, or an answer is not read.

    uvicorn has a limit for idle connections only: a peer that sends a byte now and then would stay for ever.

    Parameters
    ----------
    limits
    admission
        Is told for whom the door waits, and who waits for the door.
    visitor
        Who this is there.
    options
        uvicorn's.
    """

    def __init__(self, *, limits: Limits, admission: Admission, visitor: Visitor, **options: Any) -> None:
        super().__init__(**options)
        self._limits = limits
        self._admission = admission
        self._visitor = visitor
        self._until_head: asyncio.TimerHandle | None = None
        self._until_read: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin with a connection that has been admitted."""
        super().connection_made(transport)
        self._visitor.end = transport.abort
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take what arrived."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Give the next request its time."""
        self._forget_head()
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up."""
        self._admission.leave(self._visitor)
        self._forget_head()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for a peer that does not read, but not for ever."""
        super().pause_writing()
        self._admission.awaiting(self._visitor)
        self._until_read = self.loop.call_later(_UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The peer reads again."""
        if self._until_read is not None:
            self._until_read.cancel()
            self._until_read = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or a head that is too long, in the shape of all refusals."""
        # uvicorn does not say what h11 found, but asks from where that is still being handled.
        too_long = getattr(sys.exception(), "error_status_hint", 400) == 431
        if too_long:
            status, reason = 431, b"Request Header Fields Too Large"
            why = f"a request's first line and headers may have at most {self._limits.head_bytes} bytes"
        else:
            status, reason, why = 400, b"Bad Request", "this is not a valid HTTP request"
        body = json.dumps({"error": why}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            for event in (
                h11.Response(status_code=status, headers=headers, reason=reason),
                h11.Data(body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch(self) -> None:
        """Start the clock when a head is awaited, stop it when a request is being answered."""
        asked = self.cycle is not None and not self.cycle.response_complete
        if asked and not self.cycle.more_body:
            self._admission.answering(self._visitor)
        else:
            self._admission.awaiting(self._visitor)
        if asked:
            self._forget_head()
        elif self._until_head is None and not self.transport.is_closing():
            self._until_head = self.loop.call_later(self._limits.head_seconds, self.transport.close)

    def _forget_head(self) -> None:
        if self._until_head is not None:
            self._until_head.cancel()
            self._until_head = None
