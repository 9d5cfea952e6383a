"""What there is to choose from, by name, for ``fedunlearn list``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

Kind = Literal["models", "data", "strategies", "routines", "tasks", "metrics"]


def catalogue(what: Kind) -> Iterator[tuple[str, str]]:
    """Yield name and one line of plain text for everything of a kind."""
    for name, text in _entries(what):
        yield name, plain(text)


def plain(text: str) -> str:
    """Return a docstring's line without its markup.

    >>> plain("As :class:`~some.module.Thing` without ``excluded`` (extra `vit`).")
    'As Thing without excluded (extra vit).'
    """
    text = re.sub(r":[a-z:]+:`~(?:[^`]*\.)?([^`]+)`", r"\1", text)
    return re.sub(r"(?::[a-z:]+:)?(`+)(.*?)\1", r"\2", text)


def _entries(what: Kind) -> Iterator[tuple[str, str]]:
    from fedunlearn import plugins

    if what == "metrics":
        from fedunlearn.evaluation.metrics import BUILT_IN, discover

        for name, metric in {**BUILT_IN, **discover().metrics}.items():
            yield name, f"{metric.description} ({metric.unit}; {metric.better_words})"
        for name, why in discover().broken.items():
            yield name, f"broken: {why}"
        return
    for kind, before in OF[what].items():
        broken = plugins.broken(kind)
        for name in plugins.names(kind):
            if name not in broken or name in plugins.KINDS[kind].built_in:
                yield before + name, _line(kind, name)
        for name, why in broken.items():
            yield before + name, f"broken: {why}"


OF: dict[str, dict[str, str]] = {
    "models": {"models": ""},
    "data": {"data": "source ", "partitions": "partition ", "augmentations": "augmentation "},
    "strategies": {"strategies": ""},
    "routines": {"routines": ""},
    "tasks": {"tasks": ""},
}
"""What can be asked for → kinds of components, and what their names begin with."""


def _line(kind: str, name: str) -> str:
    """Return what a component is, and its keys in the file."""
    from fedunlearn import plugins
    from fedunlearn.config.components import keys_of

    found = plugins.find(kind, name)
    if kind == "routines":
        return f"{found.summary}; {found.source}"
    keys = ", ".join(keys_of(plugins.settings_type(kind, name)))
    text = plugins.summary(found)
    return f"{text.rstrip('.')} ({keys})." if keys else text
