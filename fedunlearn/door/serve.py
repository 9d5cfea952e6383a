"""The door as a process: sockets, TLS, uvicorn."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn

from fedunlearn.deployment.roster_file import RosterFile
from fedunlearn.door.acceptor import Acceptor
from fedunlearn.door.admission import Admission, Visitor
from fedunlearn.door.app import make_app
from fedunlearn.door.limits import Limits
from fedunlearn.door.protocol import DoorProtocol
from fedunlearn.errors import RunError, UserError

_BACKLOG = 4096
"""Connections that the system keeps until they are accepted: of one too many the peer tries again after a second."""
_GRACE = 10  # seconds for requests under way when the door is told to close


@dataclass(frozen=True)
class Tls:
    """The door's certificate, with its chain, and its private key: PEM files."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """Return a context for TLS 1.2 and 1.3.

        Raises
        ------
        UserError
            A file cannot be read, or they do not belong together.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        for path in (self.certificate, self.key):
            if not path.is_file():
                raise UserError(
                    f"{path}: there is no such file; the door's certificate and key are PEM files"
                )
        try:
            # Asked for a password, OpenSSL would wait at a terminal; a service has none.
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.certificate}, {self.key}: are not a matching certificate and key, "
                f"or the key has a password ({getattr(error, 'reason', None) or error})"
            ) from None
        return context


class DoorServer:
    """A door on a socket: made, it listens; run, it answers.

    Parameters
    ----------
    folder
        The run directory.
    port
        0: one that is free.
    tls
        None: plain HTTP, on loopback addresses only.
    proxy
        Address of a reverse proxy whose X-Forwarded-For tells the callers' addresses. Nobody else's is believed.

    Attributes
    ----------
    url : str
        Where the door is.

    Raises
    ------
    UserError
        The folder is not there, the address cannot be used, or it is not a loopback address and there is no TLS.
    """

    def __init__(
        self,
        folder: Path,
        roster: RosterFile,
        *,
        host: str = "127.0.0.1",
        port: int = 8443,
        tls: Tls | None = None,
        proxy: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        if not folder.is_dir():
            raise UserError(
                f"{folder}: there is no such folder; name a run directory, or the folder it will be in"
            )
        limits = limits or Limits()
        context = tls.context() if tls else None
        self._listener = listen(host, port, loopback_only=tls is None)
        name = f"[{host}]" if ":" in host else host
        self.url = f"http{'s' if tls else ''}://{name}:{self._listener.getsockname()[1]}"
        self._server = _Server(
            uvicorn.Config(
                make_app(folder, roster, limits),
                http=DoorProtocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,  # the door writes its own, without what callers send
                server_header=False,
                h11_max_incomplete_event_size=limits.head_bytes,
                proxy_headers=proxy is not None,
                forwarded_allow_ips=proxy,
                timeout_graceful_shutdown=_GRACE,
            ),
            self._listener,
            limits,
            context,
            direct=proxy is None,
        )

    def run(self) -> None:
        """Answer until SIGTERM, Ctrl-C or `stop`; what is under way is finished first."""
        with self._listener:
            self._server.run(sockets=[self._listener])
        if not self._server.started:
            raise RunError(f"{self.url}: the door could not be opened; see the lines above")

    def stop(self) -> None:
        """Let `run` come to its end; may be called from another thread."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """uvicorn's, but for how connections are accepted and what a signal does."""

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        limits: Limits,
        context: ssl.SSLContext | None,
        *,
        direct: bool,
    ) -> None:
        super().__init__(config)
        self._listener = listener
        self._limits = limits
        self._context = context
        self._direct = direct

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            self.should_exit = True
            return
        limits = self._limits
        admission = Admission(limits.connections, limits.address_connections if self._direct else None)

        def protocol(visitor: Visitor) -> DoorProtocol:
            return DoorProtocol(
                limits=limits,
                admission=admission,
                visitor=visitor,
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
            )

        acceptor = Acceptor(self._listener, limits, admission, protocol, self._context)
        self.servers = [acceptor]  # type: ignore[list-item]  # closed and waited for as asyncio's are
        self.started = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's own would, once all is finished, raise the signal again: a door that was told to close and
        # did is no failure.
        self.force_exit = self.should_exit
        self.should_exit = True


def listen(host: str, port: int, *, loopback_only: bool) -> socket.socket:
    """Return a listening socket.

    Raises
    ------
    UserError
        The address is none of this machine's, is taken, or others could reach it though they must not.
    """
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise UserError(f"--host {host}: is not an address or name of this machine") from None
    if loopback_only and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise UserError(
            f"--host {host}: is reachable from outside, and tokens would be sent unencrypted; give "
            "--tls-cert and --tls-key, or --host 127.0.0.1 with --insecure-loopback"
        )
    listener = socket.socket(family, kind, number)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise UserError(f"--host {host} --port {port}: cannot be listened on ({error.strerror})") from None
    return listener
