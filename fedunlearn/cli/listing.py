"""What there is to choose from, by name, for ``fedunlearn list``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

Kind = Literal["models", "data", "strategies", "routines", "metrics"]


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
    from fedunlearn import data, models, plugins
    from fedunlearn.data.augmentation import AUGMENTATIONS

    if what == "models":
        yield from plugins.describe(models.MODELS).items()
    elif what == "data":
        kinds: dict[str, Mapping[str, Callable[..., object]]] = {
            "source": data.SOURCES,
            "partition": data.PARTITIONERS,
            "augmentation": AUGMENTATIONS,
        }
        for kind, entries in kinds.items():
            for name, text in plugins.describe(entries).items():
                yield f"{kind} {name}", text
    elif what == "metrics":
        from fedunlearn.evaluation.metrics import BUILT_IN, discover

        for name, metric in {**BUILT_IN, **discover().metrics}.items():
            yield name, f"{metric.description} ({metric.unit}; {metric.better_words})"
        for name, why in discover().broken.items():
            yield name, f"broken: {why}"
    elif what == "routines":
        from fedunlearn import unlearning

        for name, method in unlearning.methods().items():
            yield name, f"{method.summary}; {method.source}"
        for name, why in plugins.broken("routines").items():
            yield name, f"broken: {why}"
    else:
        for name in plugins.names("strategies"):
            yield name, plugins.summary(plugins.find("strategies", name))
