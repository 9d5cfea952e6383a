"""Taking connections from the listening socket: nothing is spent on one before it has said something.

A connection that is silent costs a file descriptor and has a few seconds. Only with its first byte it gets a
protocol, and a TLS handshake that must be over in as short a time. asyncio's own servers begin the handshake at once
and count nothing until it is over: a thousand silent peers use up all file descriptors for a minute.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from fedunlearn.door.admission import Admission, Visitor
from fedunlearn.door.limits import Limits, neighbourhood

_AT_ONCE = 32
"""Connections accepted before those that are there already are looked after again."""
_NO_ROOM_SECONDS = 0.1
_FAREWELL_SECONDS = 2.0
"""How long a peer may take to say goodbye in TLS."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Silent:
    connection: socket.socket
    until: asyncio.TimerHandle


class Acceptor:
    """Hands connections to protocols, within the limits.

    Parameters
    ----------
    listener
        A listening socket, which stays the caller's.
    limits
    admission
        Of those that have said something.
    protocol
        Makes the protocol of one connection, whose end it reports to `admission`.
    context
        None: no TLS.
    """

    def __init__(
        self,
        listener: socket.socket,
        limits: Limits,
        admission: Admission,
        protocol: Callable[[Visitor], asyncio.Protocol],
        context: ssl.SSLContext | None,
    ) -> None:
        self._listener = listener
        self._seconds = limits.silent_seconds
        self._admission = admission
        # Counted apart from those that have said something, whose places they never take.
        self._room = Admission(limits.silent)
        self._protocol = protocol
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._silent: OrderedDict[Visitor, _Silent] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._loop.add_reader(listener, self._accept)

    def close(self) -> None:
        """Accept nobody any more, and drop those that have not begun to ask."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        for visitor in list(self._silent):
            self._drop(visitor)
        for task in self._tasks:
            task.cancel()

    async def wait_closed(self) -> None:
        """Return once nothing goes on here any more."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no file descriptors, or no memory
                if not (self._room.make_room() or self._admission.make_room()):
                    _log.warning("cannot accept connections (%s)", error.strerror)
                    self._loop.remove_reader(self._listener)
                    self._pause = self._loop.call_later(_NO_ROOM_SECONDS, self._go_on)
                return
            connection.setblocking(False)
            self._take(connection, neighbourhood(str(address[0])))

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    def _take(self, connection: socket.socket, host: str) -> None:
        """Wait for a connection's first byte, if it is not there already."""
        if _has_spoken(connection):
            self._hear(connection, host)
            return
        visitor = Visitor(host, connection.close)
        visitor.end = lambda: self._drop(visitor)
        if not self._room.enter(visitor):
            connection.close()
            return
        until = self._loop.call_later(self._seconds, self._drop, visitor)
        self._silent[visitor] = _Silent(connection, until)
        self._loop.add_reader(connection, self._speaks, visitor)

    def _speaks(self, visitor: Visitor) -> None:
        connection = self._release(visitor)
        if connection is not None:
            self._hear(connection, visitor.host)

    def _drop(self, visitor: Visitor) -> None:
        connection = self._release(visitor)
        if connection is not None:
            connection.close()

    def _release(self, visitor: Visitor) -> socket.socket | None:
        """Take a connection out of the silent ones, if it is among them still."""
        silent = self._silent.pop(visitor, None)
        if silent is None:
            return None
        silent.until.cancel()
        self._loop.remove_reader(silent.connection)
        self._room.leave(visitor)
        return silent.connection

    def _hear(self, connection: socket.socket, host: str) -> None:
        """Give a connection a protocol, if there is a place for it and it has more to say than goodbye."""
        visitor = Visitor(host, connection.close)
        if not _is_there(connection) or not self._admission.enter(visitor):
            connection.close()
            return
        task = self._loop.create_task(self._connect(connection, visitor))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: socket.socket, visitor: Visitor) -> None:
        if connection.fileno() < 0:
            return  # its place was needed before its turn came
        task = asyncio.current_task()
        assert task is not None
        visitor.end = task.cancel  # until the protocol has taken over
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._protocol(visitor),
                connection,
                ssl=self._context,
                ssl_handshake_timeout=None if self._context is None else self._seconds,
                ssl_shutdown_timeout=None if self._context is None else _FAREWELL_SECONDS,
            )
        except OSError:  # what is no TLS, or came too slowly; a peer that went away
            self._admission.leave(visitor)
        except asyncio.CancelledError:
            self._admission.leave(visitor)
            raise


def _has_spoken(connection: socket.socket) -> bool:
    """Whether something has arrived on a connection, be it its end."""
    try:
        connection.recv(1, socket.MSG_PEEK)
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True
    return True


def _is_there(connection: socket.socket) -> bool:
    """Whether a connection that can be read from has a byte to read."""
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except OSError:
        return False
