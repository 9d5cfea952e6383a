"""The other side of the door: asks for forgetting over HTTP, and looks what became of it.

Nothing but the standard library, so that the command line can ask from a machine that has no more than this package.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

from fedunlearn.errors import RunError, UserError
from fedunlearn.json_text import loads
from fedunlearn.parts import Part
from fedunlearn.requests.forget_target import Samples, Wanted
from fedunlearn.requests.records import RequestRecord

_MOST_BYTES = 16 * 2**20
_BUSY = frozenset({429, 502, 503, 504})
_PATIENCE = 10.0  # seconds that a busy door may make us wait before each further attempt


class UnreachableError(RunError):
    """The door did not answer, or said that it cannot just now."""


class _NoRedirect(HTTPRedirectHandler):
    # The token would go along, to whoever is named.
    def redirect_request(self, *_: Any) -> None:
        return None


class Remote:
    """A door.

    Parameters
    ----------
    url
        Such as ``https://server:8443``. Without TLS only on this machine: the token would be read on its way.
    token
        Whom we speak for.
    authority
        PEM file of the authority that vouches for the door's certificate; None: those that the system trusts.
    timeout
        Seconds for an answer.
    attempts
        How often to try while the door is busy or cannot be reached.
    pause
        Waits some seconds between them.

    Raises
    ------
    UserError
        The URL is none, or would send the token in the clear, or the PEM file cannot be read.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        authority: Path | None = None,
        timeout: float = 30.0,
        attempts: int = 4,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise UserError(f"{url}: is not a door's address; must be like https://server:8443")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise UserError(
                f"{url}: would send the token unencrypted; must begin with https:// except on this machine"
            )
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        self._timeout = timeout
        self._attempts = attempts
        self._pause = pause
        try:
            context = ssl.create_default_context(cafile=authority)
        except OSError as error:
            raise UserError(
                f"{authority}: cannot be read as certificates ({error.strerror or error})"
            ) from error
        # A proxy would see what goes to this machine in the clear.
        proxies = [ProxyHandler({})] if parts.scheme == "http" else []
        self._opener = build_opener(_NoRedirect, HTTPSHandler(context=context), *proxies)

    def ask(
        self,
        clients: Iterable[int] | None,
        *,
        samples: Samples = None,
        classes: Iterable[int] | None = None,
        idempotency_key: str,
    ) -> dict[str, Any]:
        """Ask to forget clients, or parts of their data as `Intake.ask` takes them; return the door's receipt.

        Tried again while no answer comes: under one key that is one request.

        Raises
        ------
        UserError
            The door refuses it.
        UnreachableError
            No answer; whether it was recorded is then not known.
        """
        wanted = {
            "clients": None if clients is None else list(clients),
            "samples": samples,
            "classes": None if classes is None else list(classes),
        }
        body = json.dumps({name: value for name, value in wanted.items() if value is not None}).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": idempotency_key}
        return self._send("POST", "/requests", body, headers)

    def request(self, request_id: str) -> RequestRecord:
        """Return a request as the door shows it; raises as `ask` does."""
        return _record(self._send("GET", f"/requests/{quote(request_id, safe='')}"), 0)

    def withdraw(self, request_id: str) -> RequestRecord:
        """Take a request back and return it; raises as `ask` does."""
        return _record(self._send("DELETE", f"/requests/{quote(request_id, safe='')}"), 0)

    def requests(self) -> list[RequestRecord]:
        """Return all requests that the token may see, in order of arrival; raises as `ask` does."""
        found: list[RequestRecord] = []
        after: int | None = 0
        while after is not None:
            page = self._send("GET", f"/requests?limit=1000&after={after}")
            found += [_record(item, len(found)) for item in page["requests"]]
            after = page["next"]
        return found

    def _send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        for attempt in range(1, self._attempts + 1):
            request = Request(
                self.url + path, data=body, headers={**self._headers, **(headers or {})}, method=method
            )
            wait = min(_PATIENCE, 2.0 ** (attempt - 1))
            try:
                with self._opener.open(request, timeout=self._timeout) as answer:
                    return self._read(answer.read(_MOST_BYTES))
            except HTTPError as error:
                with error:
                    if error.code not in _BUSY:
                        raise UserError(f"{self.url}: {_reason(error)}") from None
                    why, asked = _reason(error), _seconds(error.headers.get("Retry-After"))
                    if error.code == 429 and asked > _PATIENCE:  # no flood, but more than one may ask for
                        raise UserError(f"{self.url}: {why}") from None
                    wait = min(_PATIENCE, max(wait, asked))
            except (URLError, OSError, http.client.HTTPException) as error:
                cause = error.reason if isinstance(error, URLError) else error
                if isinstance(cause, ssl.SSLCertVerificationError):
                    raise UserError(
                        f"{self.url}: its certificate is not trusted ({cause.verify_message}); name its CA "
                        "with --tls-ca"
                    ) from None
                why = f"cannot be reached ({cause})"
            if attempt < self._attempts:
                self._pause(wait)
        raise UnreachableError(f"{self.url}: {why}")

    def _read(self, content: bytes) -> dict[str, Any]:
        try:
            answer = loads(content, self.url)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise UserError(f"{self.url}: does not answer like a door; is this its address?")
        return answer


def _record(item: Mapping[str, Any], before: int) -> RequestRecord:
    parts = parts_in(item)
    return RequestRecord(
        id=item["request_id"],
        clients=tuple(part.number for part in parts) or tuple(item["clients"]),
        parts=parts,
        at_round=None,
        state=item["state"],
        unlearned_round=item["unlearned_round"],
        ended_round=item["ended_round"],
        source="http",
        arrival=before + 1,
        arrived_at=item["arrived_at"],
        actor=item["actor"] or "",
        same_as=item["same_as"],
    )


def parts_in(item: Mapping[str, Any]) -> tuple[Part, ...]:
    """Return the parts of clients' data that a door's answer names; their numbers are made up: a door tells none."""
    samples, classes = item.get("samples"), item.get("classes")
    if isinstance(samples, Mapping):
        samples = {int(client): rows for client, rows in samples.items()}
    wanted = Wanted.of(item["clients"], samples, classes)
    return tuple(replace(part, number=-1 - place) for place, part in enumerate(wanted.parts(item["clients"])))


def _reason(error: HTTPError) -> str:
    """Return the door's own words for a refusal."""
    try:
        return str(loads(error.read(_MOST_BYTES), error.url)["error"])
    except (ValueError, LookupError, TypeError, OSError):
        return f"HTTP status {error.code} without a door's error; is this its address?"


def _seconds(header: str | None) -> float:
    return float(header) if header is not None and header.isascii() and header.isdigit() else 0.0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
