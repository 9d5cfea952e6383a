"""What a certificate is made of: every field and its type, so that a reader may rely on it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

from fedunlearn.certificates.kept import Holds
from fedunlearn.requests.transitions import ENDS, STATES

Check = Callable[[Any, str], str | None]
"""Takes a value and its place; returns what is wrong, or None."""


def problem(document: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a certificate's form, in words that begin with the place; None if nothing is."""
    return _CERTIFICATE(document, "")


def _kind(what: str, holds: Callable[[Any], bool]) -> Check:
    def check(value: Any, place: str) -> str | None:
        return None if holds(value) else f"{place} = {_shown(value)}: must be {what}"

    return check


def _maybe(check: Check) -> Check:
    return lambda value, place: None if value is None else check(value, place)


def _list(item: Check, *, at_least: int = 0) -> Check:
    def check(value: Any, place: str) -> str | None:
        if not isinstance(value, list) or len(value) < at_least:
            return f"{place} = {_shown(value)}: must be a list{' of at least one' * bool(at_least)}"
        return _first(item(inner, f"{place}[{index}]") for index, inner in enumerate(value))

    return check


def _mapping(item: Check, *, numbered: bool = False) -> Check:
    """Any names, or where `numbered` numbers of clients and parts as JSON has them."""

    def check(value: Any, place: str) -> str | None:
        if not isinstance(value, dict):
            return f"{place} = {_shown(value)}: must be an object"
        for name, inner in value.items():
            if numbered and not re.fullmatch(r"0|[1-9][0-9]{0,18}", name):
                return f"{place}: has the key {_shown(name)}; must be a client's number"
            if why := item(inner, f"{place}.{name}"):
                return why
        return None

    return check


def _object(fields: Mapping[str, Check], **optional: Check) -> Check:
    known = {**fields, **optional}

    def check(value: Any, place: str) -> str | None:
        where = f"{place}." if place else ""
        if not isinstance(value, dict):
            return f"{place or 'it'} = {_shown(value)}: must be an object"
        if missing := fields.keys() - value.keys():
            return f"{where}{min(missing)}: is missing"
        if unknown := value.keys() - known.keys():
            return f"{where}{_shown(min(unknown))}: is not a field of a certificate"
        return _first(known[name](inner, f"{where}{name}") for name, inner in value.items())

    return check


def _first(problems: Any) -> str | None:
    return next((why for why in problems if why is not None), None)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


_LARGEST = 2**63

text = _kind("a text", lambda value: isinstance(value, str))
whole = _kind("a whole number ≥ 0", lambda value: type(value) is int and 0 <= value < _LARGEST)
number = _kind("a number", lambda value: type(value) in (int, float))
truth = _kind("true or false", lambda value: isinstance(value, bool))
anything: Check = lambda value, place: None  # noqa: E731
instant = _kind(
    "a time such as 2026-01-31T12:00:00Z",
    lambda value: (
        isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value) is not None
    ),
)
sha256 = _kind(
    "a SHA-256 of 64 hexadecimal digits",
    lambda value: isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None,
)
state = _kind("a state of a request", lambda value: isinstance(value, str) and value in STATES)
end = _kind("a state that ends a request", lambda value: isinstance(value, str) and value in ENDS)
holds = _kind("a kind of what is kept", lambda value: isinstance(value, str) and value in get_args(Holds))
share = _kind("a share above 0, at most 1", lambda value: type(value) in (int, float) and 0 < value <= 1)


def _samples(value: Any, place: str) -> str | None:
    return _list(whole, at_least=1)(value, place) if isinstance(value, list) else share(value, place)


_PART = _object(
    {"number": whole, "client": whole, "samples": _maybe(_samples), "classes": _maybe(_list(whole))}
)
_TIME = _object({"at": _maybe(instant), "round": _maybe(whole), "reason": _maybe(text)})
_APPLIED = _object(
    {
        "round": whole,
        "own_update": _list(whole),
        "stored_update": _mapping(whole, numbered=True),
        "already": _list(whole),
        "never": _list(whole),
        "others": whole,
        "reason": _kind("null", lambda value: value is None),
    },
    first_round=whole,
    with_client=_list(whole),
)
_NOT_APPLIED = _object({"round": _maybe(whole), "reason": text})


def _step(value: Any, place: str) -> str | None:
    applied = isinstance(value, dict) and value.get("reason") is None
    return (_APPLIED if applied else _NOT_APPLIED)(value, place)


_TAKEN = _object(
    {
        "rounds": whole,
        "first": _maybe(whole),
        "last": _maybe(whole),
        "without_it_until": _maybe(whole),
        "planned_after_end": whole,
    }
)
_WEIGHTS = _object({"round": _maybe(whole), "sha256": _maybe(sha256), "reason": _maybe(text)})
_MEASURED = _object({"values": _mapping(_maybe(number)), "reasons": _mapping(_maybe(text))})
_STAGE = _object(
    {"round": _maybe(whole)},
    reason=_maybe(text),
    validation=_mapping(_maybe(number)),
    clients=_mapping(_MEASURED, numbered=True),
    told=_list(whole),
)
_KEPT = _object({"place": text, "files": whole, "holds": holds, "about": text})
_EARLIER = _object({"request": text, "state": end, "title": text, "sha256": _maybe(sha256)})

_CERTIFICATE = _object(
    {
        "kind": text,
        "schema": whole,
        "edition": _kind("a whole number ≥ 1", lambda value: type(value) is int and 1 <= value < _LARGEST),
        "replaces": _maybe(_object({"edition": whole, "issued_at": instant, "sha256": sha256})),
        "issued_at": instant,
        "run": _object({"name": text, "experiment": text, "federation": text, "settings_sha256": sha256}),
        "request": _object(
            {"id": text, "clients": _list(whole, at_least=1), "asked_by": text, "came_by": text},
            parts=_list(_PART, at_least=1),
        ),
        "outcome": _object(
            {
                "state": end,
                "title": text,
                "tone": text,
                "unlearned": truth,
                "caveats": _list(text),
                "meaning": _list(text),
                "remark": _maybe(text),
                "limits": _list(text),
            }
        ),
        "times": _object(dict.fromkeys(("asked", "planned", "applied", "ended"), _TIME)),
        "history": _list(
            _object(
                {
                    "entry": whole,
                    "from": _maybe(state),
                    "to": state,
                    "round": _maybe(whole),
                    "at": instant,
                    "hash": sha256,
                }
            ),
            at_least=1,
        ),
        "method": _object(
            {"in_words": text, "bound": _maybe(text), "step": _step, "settings": _mapping(anything)}
        ),
        "participation": _mapping(_TAKEN, numbered=True),
        "weights": _object(dict.fromkeys(("before", "after", "end"), _WEIGHTS)),
        "measures": _object(dict.fromkeys(("before", "unlearned", "ended"), _STAGE)),
        "data": _object(
            {
                "policy": text,
                "policy_in_words": text,
                "removed": _list(text),
                "moved": _list(text),
                "quarantine": _maybe(text),
                "superlink": _object(
                    {"state": text, "in_words": text, "messages": _maybe(whole), "objects": _maybe(whole)}
                ),
                "open": _list(text),
                "not_examined": _list(text),
                "remaining": _list(_KEPT),
                "note": _maybe(text),
            }
        ),
        "related": _object(
            {
                "same_as": _maybe(text),
                "done_by": _list(text),
                "forgotten_by": _mapping(_list(text), numbered=True),
                "recovery_taken_over_by": _list(text),
                "same_step": _list(text),
                "same_step_more": whole,
                "as_a_whole": _object(dict.fromkeys(("forgotten", "left_out", "open"), _list(whole))),
                "earlier_certificates": _list(_EARLIER),
            }
        ),
        "trail": _object({"entry": whole, "hash": sha256, "round": whole, "problems": _list(text)}),
        "issuer": _object({"software": text, "key_id": _maybe(text), "public_key": _maybe(text)}),
        "signature": _object({"algorithm": _maybe(text), "value": _maybe(text), "reason": _maybe(text)}),
    }
)
