"""Around everything: one line in the log and one count per answer, headers of every answer, no error unshaped."""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedunlearn.door.errors import problem
from fedunlearn.door.metrics import METHODS, Answers

_log = logging.getLogger(__name__)
_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
]
_HTTPS = (b"strict-transport-security", b"max-age=31536000")


class Watch:
    """Counts and logs answers.

    The log names the route, not the path as sent, and no header: what a caller puts in the wrong place, a token
    above all, does not end up there.
    """

    def __init__(self, app: ASGIApp, answers: Answers) -> None:
        self._app = app
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                common = [*_HEADERS, _HTTPS] if scope["scheme"] == "https" else _HEADERS
                message["headers"] = [*message.get("headers", []), *common]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:
            # The app has answered by then, if it could; what is left is an error outside it.
            if status == 0:
                _log.exception("internal error of the door")
                await problem(500, "internal error of the door; see its log")(scope, receive, noting)
        finally:
            seconds = time.perf_counter() - begun
            if status:
                self._answers.add(scope["method"], status, seconds)
            route = getattr(scope.get("route"), "path", "-")
            actor = scope.get("state", {}).get("actor", "-")
            method = scope["method"] if scope["method"] in METHODS else "-"
            _log.info("%s %s %s %s %.1f ms", method, route, status or "-", actor, 1000 * seconds)
