"""The one reader of JSON that others may have written: what cannot be read, or not without doubt, is one line."""

from __future__ import annotations

import json
import re
from typing import Any

from fedunlearn.errors import UserError

DEEPEST = 64
"""No document here is nested half as deep; whoever walks through one, or writes it again, may recurse."""

_LARGEST = 2**64
_LONG_INTEGER = re.compile(r"[0-9]{20}")
_LARGE_FLOAT = re.compile(r"[eE]\+?[0-9]{3}|[0-9]{300}")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class JsonError(UserError, ValueError):
    """A text is no JSON, or JSON that says two things at once. One line: where, what, and at which place."""


def loads(text: str | bytes, place: object, *, allow_nan: bool = False) -> Any:
    """Parse JSON.

    Parameters
    ----------
    text
        Bytes must be UTF-8; a byte order mark in front is skipped.
    place
        What the text is called in an error, such as its path.
    allow_nan
        Take NaN and infinities, which Python writes and JSON does not know. Otherwise every number is finite.

    Raises
    ------
    JsonError
        It is no JSON; it is nested deeper than `DEEPEST`; it has a key twice in one object, an integer beyond 64
        bits, a number that is not finite, or text that no file can hold (half a surrogate pair).
    """
    try:
        whole = text.decode("utf-8-sig") if isinstance(text, bytes) else text.removeprefix("\ufeff")
        value = json.loads(
            whole,
            object_pairs_hook=_object,
            parse_constant=None if allow_nan else _constant,
            # Only a text with such numbers in it pays for a call per number.
            parse_int=_integer if _LONG_INTEGER.search(whole) else None,
            parse_float=_finite if not allow_nan and _LARGE_FLOAT.search(whole) else None,
        )
        if whole.count("[") + whole.count("{") > DEEPEST:
            _refuse_depth(value)
        if _SURROGATE.search(whole):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise JsonError(f"{place}: is not JSON (byte {error.start} is not UTF-8)") from None
    except UnicodeEncodeError:
        raise JsonError(f"{place}: is not JSON (it contains half a surrogate pair)") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise JsonError(f"{place}: is not JSON ({error.msg}: {where})") from None
    except RecursionError:
        raise JsonError(f"{place}: cannot be read as JSON (nested deeper than {DEEPEST})") from None
    except _RefusedError as error:
        raise JsonError(f"{place}: cannot be read as JSON ({error})") from None
    return value


def loads_object(text: str | bytes, place: object, *, allow_nan: bool = False) -> dict[str, Any]:
    """Parse JSON that must be an object; see :func:`loads`."""
    value = loads(text, place, allow_nan=allow_nan)
    if not isinstance(value, dict):
        raise JsonError(f"{place}: is {_kind(value)}, but must be a JSON object {{…}}")
    return value


class _RefusedError(Exception):
    """What is wrong with JSON that Python's reader would take."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _RefusedError(f"the key {_short(twice)} appears twice")
    return read


def _constant(name: str) -> float:
    raise _RefusedError(f"{name} is not a number")


def _integer(digits: str) -> int:
    if len(digits) > 21 or abs(int(digits)) >= _LARGEST:
        raise _RefusedError(f"the integer {_short(digits)} is beyond 64 bits")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0.0:
        raise _RefusedError(f"the number {_short(text)} is not finite")
    return value


def _refuse_depth(value: Any) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST):
        items = (item for outer in level for item in (outer.values() if isinstance(outer, dict) else outer))
        level = [item for item in items if isinstance(item, dict | list)]
        if not level:
            return
    raise _RefusedError(f"nested deeper than {DEEPEST}")


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return "a list" if isinstance(value, list) else "a text" if isinstance(value, str) else "a number"


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:20]}…{text[-8:]}")
