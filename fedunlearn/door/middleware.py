"""Before a request reaches the app: limits, then the token, then the body, read whole and within bounds."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedunlearn.deployment.roster_file import RosterFile
from fedunlearn.door.auth import CHALLENGE, DeniedError, actor_of
from fedunlearn.door.errors import problem
from fedunlearn.door.limits import Buckets, Limits, neighbourhood

PUBLIC = frozenset({"/health", "/docs", "/openapi.json"})
"""Paths that need no token."""
_DRAIN = 1024 * 1024  # bytes read beyond the limit, so that the refusal still reaches whoever is sending
_CLOSE = {"Connection": "close"}


class Gate:
    """Lets through who has a token and keeps to the limits; puts ``actor`` into the request's state.

    Nothing of a body is parsed for a stranger, and nobody's body is held beyond the limit, whether its length is
    announced, chunked, or a lie.
    """

    def __init__(self, app: ASGIApp, *, roster: RosterFile, limits: Limits) -> None:
        self._app = app
        self._roster = roster
        self._limits = limits
        self._addresses = Buckets(limits.address_rate)
        self._tokens = Buckets(limits.token_rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._admit(scope)
            body = await self._body(scope, receive)
        except _RefusedError as refused:
            await problem(refused.status, str(refused), refused.headers)(scope, receive, send)
            return
        if body is not None:
            await self._app(scope, _replay(body, receive), send)

    def _admit(self, scope: Scope) -> None:
        # uvicorn's parser bounds a head that it must wait for, not one that arrives at once.
        head = len(scope["raw_path"]) + len(scope["query_string"])
        head += sum(len(name) + len(value) for name, value in scope["headers"])
        if head > self._limits.head_bytes:
            raise _RefusedError(
                431, f"a request's first line and headers may have at most {self._limits.head_bytes} bytes"
            )
        address = neighbourhood(scope["client"][0]) if scope.get("client") else ""
        _spend(self._addresses, address, "this address sends")
        if scope["path"] in PUBLIC:
            return
        try:
            actor = actor_of(scope["headers"], self._roster)
        except DeniedError as denied:
            raise _RefusedError(denied.status, str(denied), CHALLENGE) from None
        scope.setdefault("state", {})["actor"] = actor
        _spend(self._tokens, str(actor), f"{actor} sends")

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the whole body, or None when the sender has gone."""
        limit = self._limits.body_bytes
        headers = dict(scope["headers"])
        too_large = _RefusedError(413, f"a body may have at most {limit} bytes", _CLOSE)
        announced = headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced[:20]) > limit and b"expect" in headers:
            raise too_large  # it waits to be told to go on
        chunks: list[bytes] = []
        total = 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                more = True
                while more and total <= limit + _DRAIN:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    chunk, more = message.get("body", b""), message.get("more_body", False)
                    total += len(chunk)
                    if total <= limit:
                        chunks.append(chunk)
        except TimeoutError:
            if total <= limit:
                seconds = self._limits.body_seconds
                raise _RefusedError(408, f"the body must arrive within {seconds:g} seconds", _CLOSE) from None
        if total > limit:
            raise too_large
        return b"".join(chunks)


class _RefusedError(Exception):
    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


def _spend(buckets: Buckets, caller: str, who: str) -> None:
    if seconds := buckets.take(caller):
        wait = math.ceil(seconds)
        message = f"{who} more than {buckets.rate:g} requests per second; retry in {wait} s"
        raise _RefusedError(429, message, {"Retry-After": str(wait)})


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that hands the body over once, and then tells when the sender goes."""
    first = True

    async def again() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again
