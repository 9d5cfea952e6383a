"""Where values come from, and the one line that refuses one: ``path = value (place): what would be right``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedunlearn.config.toml_text import inline
from fedunlearn.errors import ConfigError


@dataclass(frozen=True)
class Origin:
    """Where values come from: a file, but for the paths that something else has set."""

    file: str
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    def place(self, path: str) -> str:
        """Return where the value at this path was set: it, something around it, or something in it."""
        related = [known for known in self.elsewhere if _within(known, path) or _within(path, known)]
        return self.elsewhere[max(related, key=len)] if related else self.file

    def error(self, path: str, value: Any, message: str) -> ConfigError:
        """Return the one-line error; a table, too long to show, and an absent value (None) go unshown."""
        items = value if isinstance(value, list | tuple) and value else [value]
        unshown = value is None or any(isinstance(item, Mapping) for item in items)
        shown = "" if unshown else f" = {_shortened(_shown(value))}"
        return ConfigError(f"{path}{shown} ({self.place(path)}): {message}")


def _within(path: str, outer: str) -> bool:
    return path == outer or path.startswith((f"{outer}.", f"{outer}["))


def _shown(value: Any) -> str:
    """Return a value as it would stand in a file; of what could not, Python's words on one line."""
    if type(value) is int and abs(value) > 2**1000:
        return hex(value)  # Python writes no more than 4,300 decimal digits
    try:
        return inline(value)
    except TypeError:
        return " ".join(repr(value).split())


def _shortened(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
