"""Plain Python values written as TOML, so that ``tomllib`` reads the same values back."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any


def dumps(tree: Mapping[str, Any]) -> str:
    """Return the TOML document of a mapping: plain values first, then ``[sections]`` and ``[[lists]]``."""
    return "\n".join(_lines(tree)) + "\n"


def inline(value: Any) -> str:
    """Return a value as it stands right of ``=``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's; DEL, which TOML does not allow bare, and what breaks a line are added.
        escaped = json.dumps(value, ensure_ascii=False)
        return re.sub("[\x7f-\x9f\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04X}", escaped)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return f"[{', '.join(inline(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{bare(key)} = {inline(item)}' for key, item in value.items())}}}"
    raise TypeError(f"TOML has no form for {type(value).__name__}")


def bare(key: str) -> str:
    """Return a key, quoted only where TOML asks for it."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else inline(key)


def _lines(table: Mapping[str, Any], path: str = "") -> Iterator[str]:
    # A bare value below a [section] would belong to it, so sections come last.
    sections = {key: value for key, value in table.items() if _is_section(value)}
    for key, value in table.items():
        if key not in sections:
            yield f"{bare(key)} = {inline(value)}"
    for key, value in sections.items():
        name = path + bare(key)
        header, tables = (f"[{name}]", [value]) if isinstance(value, Mapping) else (f"[[{name}]]", value)
        for item in tables:
            yield from ("", header)
            yield from _lines(item, f"{name}.")


def _is_section(value: Any) -> bool:
    if isinstance(value, Mapping):
        return True
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)
