"""What a refusal looks like: always ``{"error": one line}``, never a stack trace, never what was sent."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Match

from fedunlearn.door.auth import CHALLENGE, DeniedError
from fedunlearn.door.ledger_thread import UnavailableError
from fedunlearn.requests import (
    InvalidRequestError,
    NotAllowedError,
    NotWithdrawableError,
    RequestConflictError,
    TooManyRequestsError,
)

_log = logging.getLogger(__name__)
_LONGEST = 300  # characters
_NOWHERE = "there is nothing at this path; /docs lists all paths"
_STATUS: dict[type[Exception], int] = {  # of what the ledger's intake refuses, in its own words
    InvalidRequestError: 422,
    NotAllowedError: 403,
    NotWithdrawableError: 409,
    RequestConflictError: 409,
}
_MISTAKES = {  # what pydantic calls a mistake → our words, with its numbers
    "extra_forbidden": "is not a key of a request; leave it out",
    "missing": "is missing",
    "too_short": "must name at least {min_length} {one}",
    "too_long": "may name at most {max_length} {several}",
    "list_type": "must be a list of {one} numbers, such as [3]",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "literal_error": "must be one of {expected}",
    "string_too_short": "must have at least {min_length} character",
    "string_too_long": "may have at most {max_length} characters",
    "string_pattern_mismatch": "must be printable ASCII characters without spaces",
}
_SAMPLES = (
    "samples: must be a share above 0 and at most 1, such as 0.5; or distinct rows, such as [4, 17]; or rows by "
    'client: {"3": [4, 17]}'
)
_PLACES = {"body": "", "path": "path ", "query": "query ", "header": "header "}


def problem(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return a refusal; of the message what fits on one line of plain characters."""
    line = " ".join(message.split()).encode("ascii", "backslashreplace").decode()
    return JSONResponse({"error": line[:_LONGEST]}, status, dict(headers or {}))


def install(app: FastAPI) -> None:
    """Give every error of an app that shape."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(DeniedError, _denied)
    for kind in _STATUS:
        app.add_exception_handler(kind, _refused)
    app.add_exception_handler(UnavailableError, _unavailable)
    app.add_exception_handler(TooManyRequestsError, _too_many)
    app.add_exception_handler(Exception, _broken)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 404 and error.detail == "Not Found":
        return problem(404, _NOWHERE)
    if error.status_code == 405:
        allowed = ", ".join(_methods(request))
        return problem(405, f"this path accepts {allowed}", {"Allow": allowed})
    if (
        error.status_code == 400
    ):  # FastAPI's name for a body that is no JSON for other reasons than its syntax
        return problem(422, "body: must be JSON")
    return problem(error.status_code, str(error.detail), error.headers)


def _methods(request: Request) -> list[str]:
    # Starlette names those of the first route only, and a path has one route for each method.
    routes = (route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE)
    return sorted({method for route in routes for method in getattr(route, "methods", None) or ()})


async def _malformed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["loc"] == ("body",) or first["type"] == "json_invalid":  # the latter's place is a byte's number
        return problem(422, 'body: must be JSON, such as {"clients": [3]}, sent as application/json')
    if first["loc"][:2] == ("body", "samples"):
        return problem(
            422, _SAMPLES
        )  # of a value that may be of several kinds, each would say something else
    mistake = _MISTAKES.get(first["type"], "is not expected here; see /docs")
    one, several = ("class", "classes") if first["loc"][:2] == ("body", "classes") else ("client", "clients")
    words = {**first.get("ctx", {}), "one": one, "several": several}
    return problem(422, f"{_place(first['loc'])}: {mistake.format_map(words)}")


def _place(path: Iterable[object]) -> str:
    """Return where the mistake is, such as "clients[0]" or "header Idempotency-Key"."""
    first, *rest = path
    if not rest:
        return str(first)
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in rest)
    return _PLACES.get(str(first), "") + steps.lstrip(".")


async def _denied(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, DeniedError)
    return problem(error.status, str(error), CHALLENGE if error.status == 401 else None)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    return problem(next(status for kind, status in _STATUS.items() if isinstance(error, kind)), str(error))


async def _unavailable(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, UnavailableError)
    return problem(503, str(error), {"Retry-After": str(error.retry_after)})


async def _too_many(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, TooManyRequestsError)
    return problem(429, str(error), {"Retry-After": str(error.retry_after)})


async def _broken(request: Request, error: Exception) -> JSONResponse:
    _log.error("internal error of the door", exc_info=error)
    return problem(500, "internal error of the door; see its log")
