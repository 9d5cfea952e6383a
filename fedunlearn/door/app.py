"""The door's API: ask, look, withdraw; and what operators and monitoring need beside it.

Every answer that a request was taken up is given after the ledger has it on the disk. The role checks are in
`auth`, the limits in `gate` and `limits`, the ledger behind `desk`; here is what each path means.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Query, Request, Response, Security
from fastapi.responses import HTMLResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from fedunlearn import __version__
from fedunlearn.deployment.roster import Actor
from fedunlearn.deployment.roster_file import RosterFile
from fedunlearn.door import errors
from fedunlearn.door.auth import DeniedError, may_ask, may_see, require
from fedunlearn.door.health import Checkup
from fedunlearn.door.ledger_thread import Desk, OpenLedger
from fedunlearn.door.limits import Limits
from fedunlearn.door.metrics import CONTENT_TYPE, Answers, Federation
from fedunlearn.door.middleware import Gate
from fedunlearn.door.page import page
from fedunlearn.door.schemas import Ask, Health, Problem, ReceiptAnswer, RequestAnswer, RequestList, State
from fedunlearn.door.watch import Watch
from fedunlearn.requests import LIVE_BRANCH, RequestRecord, UnknownRequestError
from fedunlearn.requests.forget_target import NOBODY

ABOUT = """Ask a live federation to forget clients or parts of their data, see what became of it, withdraw a \
request that has not been taken up.

Every path except /health, /docs and /openapi.json needs a token from the roster: `Authorization: Bearer TOKEN`. An \
operator may ask for any client, a client only for itself and its own data, and a monitor may read /metrics. Errors \
are {"error": one line}; after 429 and 503 retry after Retry-After seconds. If a POST gets no answer, send it \
again with the same Idempotency-Key: it is recorded only once."""

_WORDS = {
    401: "No token, or one that is not in the roster.",
    403: "The token's role does not allow this, or a client named someone else's request.",
    404: "No such request.",
    408: "The body arrived too slowly.",
    409: "It is too late for this, or the Idempotency-Key was used for something else.",
    413: "The body is too large.",
    422: "Malformed, or it names a client the federation does not have.",
    431: "The first line and the headers are too long.",
    429: "Too many requests; Retry-After says when to retry.",
    503: "The ledger is unavailable; Retry-After says when to retry.",
}
_REPEATED: dict[str, Any] = {
    "model": ReceiptAnswer,
    "description": "The key had already been used for this request.",
}
_RETRY = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
_KEY = "1 to 255 printable characters of your choice, new for each new request."


_LIMITS = (408, 413, 429, 431)
_GUARDED = (401, 403, 503, *_LIMITS)


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {"model": Problem, "description": _WORDS[status]}
        | ({"headers": _RETRY} if status in (429, 503) else {})
        for status in sorted(statuses)
    }


async def _actor(
    request: Request, _: Annotated[object, Security(HTTPBearer(auto_error=False, scheme_name="token"))]
) -> Actor:
    """Return who asks; the gate has found out. The security scheme is there for the schema."""
    actor: Actor = request.state.actor
    return actor


Caller = Annotated[Actor, Depends(_actor)]


class Door:
    """The desks of one run directory, and the checks that look after them."""

    def __init__(self, folder: Path, roster: RosterFile, limits: Limits) -> None:
        self.folder = folder
        self.answers = Answers()
        self.writer, self.reader = (
            Desk(folder, writes=writes, waiting=limits.waiting, patience=limits.ledger_seconds)
            for writes in (True, False)
        )
        self.checkup = Checkup(folder, roster, self.reader, self.writer)

    def close(self) -> None:
        """Finish what waits, and stop."""
        self.writer.close()
        self.reader.close()

    async def own(self, request_id: str, actor: Actor) -> RequestRecord:
        """Return a request that the actor may see; a client is not told whether another's exists."""
        found = await self.reader.do(lambda opened: _find(opened, request_id))
        if found is None and actor.role == "operator":
            raise HTTPException(404, "there is no such request")
        if found is None or not may_see(actor, found.owners):
            raise DeniedError(403, "this is not your request")
        return found


def make_app(folder: Path, roster: RosterFile, limits: Limits | None = None) -> ASGIApp:
    """Return the door of a run directory as an ASGI application.

    Parameters
    ----------
    folder
        The run directory. It may still be empty: the door then answers 503 until a run has begun.
    roster
        Who may do what.
    limits
        Default: `Limits()`.
    """
    limits = limits or Limits()
    door = Door(folder, roster, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(door.close)

    app = FastAPI(
        title="fedunlearn door",
        description=ABOUT,
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own page fetches its scripts from the internet
        redoc_url=None,
        redirect_slashes=False,  # a redirect would be built from whatever Host the caller sends
    )
    errors.install(app)
    _requests(app, door)
    _upkeep(app, door)
    return Watch(Gate(app, roster=roster, limits=limits), door.answers)


def _requests(app: FastAPI, door: Door) -> None:
    """Add the paths of forget requests."""

    @app.post(
        "/requests",
        status_code=202,
        responses={200: _REPEATED, **_refusals(*_GUARDED, 409, 422)},
        response_model_exclude_unset=True,
    )
    async def ask(
        wanted: Ask,
        actor: Caller,
        response: Response,
        idempotency_key: Annotated[
            str | None,
            Header(
                alias="Idempotency-Key", min_length=1, max_length=255, pattern="^[!-~]+$", description=_KEY
            ),
        ] = None,
    ) -> ReceiptAnswer:
        """Ask to forget clients, a share or single samples of their data, or classes.

        202 says that the request is on the disk and will be served; Location leads to what becomes of it.
        """
        if wanted.clients is None and wanted.classes is None:
            raise HTTPException(422, NOBODY)
        may_ask(actor, wanted.clients)
        receipt, served = await door.writer.do(
            lambda opened: (
                opened.intake.ask(
                    wanted.clients,
                    samples=wanted.rows,
                    classes=wanted.classes,
                    source="http",
                    actor=str(actor),
                    idempotency_key=idempotency_key,
                ),
                opened.ledger.served(LIVE_BRANCH),
            )
        )
        response.headers["Location"] = f"/requests/{receipt.request_id}"
        if receipt.repeated:
            response.status_code = 200
        return ReceiptAnswer.of(receipt, served=served)

    @app.get("/requests", responses=_refusals(*_GUARDED, 422), response_model_exclude_unset=True)
    async def look_at_all(
        actor: Caller,
        state: Annotated[list[State] | None, Query(description="Only requests in these states.")] = None,
        limit: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 100,
        after: Annotated[int, Query(ge=0, lt=2**31, description="The `next` of the previous answer.")] = 0,
    ) -> RequestList:
        """List requests in order of arrival: an operator sees all, a client its own."""
        require(actor, "operator", "client")
        seen = await door.reader.do(
            lambda opened: opened.ledger.page(
                LIVE_BRANCH, state, client=actor.client, after=after, limit=limit + 1
            )
        )
        following = seen[limit - 1].arrival if len(seen) > limit else None
        return RequestList(requests=[RequestAnswer.of(r, actor) for r in seen[:limit]], next=following)

    @app.get(
        "/requests/{request_id}",
        responses=_refusals(*_GUARDED, 404, 422),
        response_model_exclude_unset=True,
    )
    async def look(request_id: str, actor: Caller) -> RequestAnswer:
        """See what has become of a request."""
        require(actor, "operator", "client")
        return RequestAnswer.of(await door.own(request_id, actor), actor)

    @app.delete(
        "/requests/{request_id}",
        responses=_refusals(*_GUARDED, 404, 409, 422),
        response_model_exclude_unset=True,
    )
    async def withdraw(request_id: str, actor: Caller) -> RequestAnswer:
        """Withdraw a request that is received or waiting; 409 says which state it is in already."""
        require(actor, "operator", "client")
        await door.own(request_id, actor)
        record = await door.writer.do(lambda opened: opened.intake.withdraw(request_id, actor=str(actor)))
        return RequestAnswer.of(record, actor)


def _upkeep(app: FastAPI, door: Door) -> None:
    """Add the paths for operators, monitoring and readers."""

    @app.get(
        "/health", responses={503: {"model": Health, "description": "It cannot."}, **_refusals(*_LIMITS)}
    )
    async def health(response: Response) -> Health:
        """Tell whether the door can take requests; needs no token."""
        found = await door.checkup.result()
        if found.status == "failing":
            response.status_code = 503
        return found

    text = {"content": {"text/plain": {"schema": {"type": "string"}}}}

    @app.get("/metrics", response_class=Response, responses={200: text, **_refusals(*_GUARDED)})
    async def metrics(actor: Caller) -> Response:
        """Return figures of the federation and the door, as Prometheus reads them."""
        require(actor, "operator", "monitor")
        federation = await door.reader.do(lambda opened: Federation.read(opened.ledger, opened.folder))
        return Response(federation.text() + door.answers.text(), media_type=CONTENT_TYPE)

    html = {"content": {"text/html": {"schema": {"type": "string"}}}}

    @app.get("/docs", response_class=Response, responses={200: html, **_refusals(*_LIMITS)})
    async def docs() -> Response:
        """Show this page."""
        return HTMLResponse(page(app.openapi()))


def _find(opened: OpenLedger, request_id: str) -> RequestRecord | None:
    try:
        return opened.intake.record(request_id)
    except UnknownRequestError:
        return None
