"""The door as those see it who ask from outside: over TLS, each with a token of their own."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any

import httpx

from tests.containers.stack import Stack

CLIENTS = 3


class Door:
    """The door of a project on this machine.

    Parameters
    ----------
    project
    folder
        Where the authority's certificate and the tokens are put.
    """

    def __init__(self, project: Stack, folder: Path) -> None:
        self._project = project
        authority = project.fetch("server-keys", "/keys/trust/ca.crt", folder)
        self._context = ssl.create_default_context(cafile=authority)
        names = ("server-keys", "operator"), *(("join", f"client-{k}") for k in range(CLIENTS))
        self._tokens = {
            name: project.fetch(holder, f"/keys/operator/{name}.token", folder).read_text().strip()
            for holder, name in names
        }
        self.found()

    def found(self) -> None:
        """Look up where the door is: a container that was started again is published on another port."""
        self._port = self._project.compose("port", "door", "8443").strip().rpartition(":")[2]

    def send(
        self, method: str, path: str, *, by: str | None, key: str | None = None, **more: Any
    ) -> httpx.Response:
        """Send one request, in the name of a token's holder."""
        headers = {} if by is None else {"Authorization": f"Bearer {self._tokens[by]}"}
        if key is not None:
            headers["Idempotency-Key"] = key
        url = f"https://127.0.0.1:{self._port}{path}"
        with httpx.Client(verify=self._context, timeout=60) as client:
            return client.request(method, url, headers=headers, **more)

    def ask(self, *clients: int, by: str | None, key: str | None = None) -> httpx.Response:
        """Ask to forget clients."""
        return self.send("POST", "/requests", by=by, key=key, json={"clients": clients})

    def answers(self) -> bool:
        """Whether the door is there."""
        try:
            return self.send("GET", "/health", by=None).status_code == 200
        except httpx.TransportError:
            return False

    def state(self, request_id: str) -> str:
        """Return a request's state."""
        return str(self.send("GET", f"/requests/{request_id}", by="operator").json()["state"])

    def rounds(self) -> tuple[int, int]:
        """Return the last round that was planned, and the last that is complete; 0 before the first."""
        text = self.send("GET", "/metrics", by="operator").text
        planned, complete = (
            re.search(rf"^fedunlearn_round_{word} (\d+)$", text, re.M) for word in ("planned", "completed")
        )
        return (int(planned[1]), int(complete[1])) if planned and complete else (0, 0)
