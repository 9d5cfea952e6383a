"""What a component says of itself, as Markdown: the docstring of its module, and its settings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from dataclasses import MISSING, Field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fedunlearn.config.components import key_of, settings_fields
from fedunlearn.config.conditions import LARGEST, LARGEST_RATE, Must, at_most

HEADINGS = (
    "Paper",
    "Formula",
    "Source",
    "Deviations and choices of ours",
    "Deviations",
    "Choice of ours",
    "BatchNorm",
)
"""What a paragraph of a module's docstring may begin with, to be set in bold."""
ABSURD = (at_most(LARGEST).text, at_most(LARGEST_RATE).text)
"""Bounds that only rule out what nobody would write."""


def row(cells: Iterable[str]) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cells)} |"


def code_of(text: str) -> str:
    """Return text in which roles and double backticks have become code."""
    return re.sub(r":[a-z]+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")


def text_of(module: Any) -> str:
    """Return a module's docstring, with what its paragraphs begin with in bold and formulas in blocks."""
    text = code_of(inspect.cleandoc(module.__doc__ or ""))
    # What is set off by indentation is a formula: Markdown has blocks for it.
    text = re.sub(r"\n\n((?:    [^\n]+\n?)+)", lambda m: f"\n\n```\n{inspect.cleandoc(m[1])}\n```\n", text)
    return re.sub(rf"(?m)^({'|'.join(HEADINGS)})(\.|:)", r"\n**\1\2**", text).replace("\n\n\n", "\n\n")


def settings_of(cls: Any) -> str:
    """Return the keys of a dataclass of settings, each with its default and what else it may be; "none"."""
    kinds = get_type_hints(cls, include_extras=True)
    all_have_defaults = all(each.default is not MISSING for each in fields(cls))
    made = cls() if all_have_defaults else cls  # a default may depend on another setting
    nested = settings_fields(cls)
    found = []
    for field in fields(cls):
        if field.name in nested:
            found.append(f"`{key_of(field)}` (a table: those of what `{nested[field.name].named_by}` names)")
        else:
            found.append(_setting(field, kinds[field.name], getattr(made, field.name, MISSING)))
    return ", ".join(found) or "none"


def _setting(field: Field[Any], kind: Any, default: Any) -> str:
    if default is MISSING:
        return f"`{key_of(field)}` (required)"
    return f"`{key_of(field)} = {_toml(default)}`{_bounds(kind, default)}"


def _bounds(kind: Any, default: Any) -> str:
    """Return the other choices that there are, or the bounds of a number."""
    if get_origin(kind) is Literal:
        return f" (or {', '.join(_toml(choice) for choice in get_args(kind) if choice != default)})"
    texts = [condition.text for condition in _conditions(kind)]
    told = [text.removeprefix("must be ") for text in texts if text not in ABSURD]
    return f" ({', '.join(told)})" if told else ""


def _conditions(kind: Any) -> list[Must]:
    """Return the conditions of an annotation; of ``X | None`` those of X."""
    own = [each for each in getattr(kind, "__metadata__", ()) if isinstance(each, Must)]
    return own or [each for one in get_args(kind) for each in _conditions(one)]


def _toml(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"
