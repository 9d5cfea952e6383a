"""What there is to choose from, by name, for ``fedunlearn list``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Literal


def catalogue(what: Literal["models", "data", "strategies", "metrics"]) -> Iterator[tuple[str, str]]:
    """Yield name and one line for everything of a kind."""
    from fedunlearn import data, models, registry
    from fedunlearn.data.augmentation import AUGMENTATIONS
    from fedunlearn.evaluation.catalogue import MEASURES

    if what == "models":
        yield from registry.describe(models.MODELS).items()
    elif what == "data":
        kinds: dict[str, Mapping[str, Callable[..., object]]] = {
            "source": data.SOURCES,
            "partition": data.PARTITIONERS,
            "augmentation": AUGMENTATIONS,
        }
        for kind, entries in kinds.items():
            for name, text in registry.describe(entries).items():
                yield f"{kind} {name}", text
    elif what == "metrics":
        for name, measure in MEASURES.items():
            yield name, f"{measure.description} ({measure.unit}; {measure.better})"
    else:
        from fedunlearn.registry import load_object

        for name, strategy in load_object("strategies.server_app:STRATEGIES").items():
            yield name, (inspect.getdoc(strategy) or "").partition("\n")[0]
