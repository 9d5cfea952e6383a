"""A door in a thread of the test's own process, and callers that knock."""

from __future__ import annotations

import http.client
import json
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fedunlearn.deployment.roster import ClientEntry, Roster, StaffEntry, new_token, token_hash
from fedunlearn.deployment.roster_file import RosterFile, edit
from fedunlearn.door.limits import Limits
from fedunlearn.door.serve import DoorServer

CLIENTS = 8
EXPERIMENT = f"""
name = "live"
data = {{source = "synthetic-images"}}
federation = {{num-clients = {CLIENTS}}}
model = {{name = "mlp"}}
train = {{rounds = 3, lr = 0.1}}
method = [{{name = "puf"}}]
recover = {{until = "reference-accuracy", max-rounds = 4}}
requests = {{}}
"""
GENEROUS = Limits(token_rate=1e6, address_rate=1e6)


def eventually(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.01)


@dataclass(frozen=True)
class Place:
    """A run directory with a roster of every client, the operator alice and the monitor eye."""

    folder: Path
    roster: Path
    tokens: Mapping[str, str]


def place(folder: Path, *, begun: bool = True) -> Place:
    """Make one; `begun` as a run leaves it at its start."""
    run = folder / "run"
    run.mkdir()
    if begun:
        (run / "experiment.toml").write_text(EXPERIMENT)
    tokens = {who: new_token() for who in ("alice", "eye", *map(str, range(CLIENTS)))}
    roster = Roster(
        tuple(ClientEntry(number=n, token_sha256=token_hash(tokens[str(n)])) for n in range(CLIENTS)),
        (StaffEntry(name="alice", token_sha256=token_hash(tokens["alice"])),),
        (StaffEntry(name="eye", token_sha256=token_hash(tokens["eye"])),),
    )
    edit(folder / "roster.toml", lambda _: roster, new=True)
    return Place(run, folder / "roster.toml", tokens)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The one line of a refusal; anything of another shape fails here."""
        document = self.json
        assert list(document) == ["error"] and isinstance(document["error"], str), document
        assert document["error"] and document["error"].isprintable(), document
        return document["error"]


class Caller:
    """Knocks at a door, as somebody of the roster or as a stranger."""

    def __init__(self, url: str, tokens: Mapping[str, str], context: ssl.SSLContext | None = None) -> None:
        self.url = url
        self.tokens = tokens
        self._context = context

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return str(parts.hostname), int(parts.port or 0)

    def __call__(
        self,
        method: str,
        path: str,
        who: str | None = None,
        document: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        chunked: bool = False,
    ) -> Answer:
        """Send one request on a connection of its own."""
        sent = dict(headers or {})
        if who is not None:
            sent["Authorization"] = f"Bearer {self.tokens[who]}"
        if document is not None:
            body = json.dumps(document).encode()
            sent.setdefault("Content-Type", "application/json")
        make = http.client.HTTPSConnection if self._context else http.client.HTTPConnection
        extra = {"context": self._context} if self._context else {}
        connection = make(*self.address, timeout=30, **extra)
        try:
            connection.request(method, path, body, sent, encode_chunked=chunked)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()


@contextmanager
def served(at: Place, limits: Limits = GENEROUS, **options: Any) -> Iterator[Caller]:
    """Serve a place until the block ends."""
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    server = DoorServer(at.folder, RosterFile(at.roster), port=0, limits=limits, **options)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield Caller(server.url, at.tokens)
    finally:
        server.stop()
        thread.join(30)
        assert not thread.is_alive(), "the door did not close"
