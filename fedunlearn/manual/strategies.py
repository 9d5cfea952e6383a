"""docs/strategies.md, from the strategies."""

from __future__ import annotations

import inspect
from typing import Any

from fedunlearn import plugins
from fedunlearn.config.origin import Origin
from fedunlearn.config.toml_tree import read
from fedunlearn.manual.components import code_of, row, settings_of, text_of
from fedunlearn.server.history import Keeps
from fedunlearn.strategies.base import UnlearningStrategy

INTRODUCTION = """# Strategies: how a federation forgets

A strategy is the method of the server: who takes part in the round that forgets, and what comes out of it. An
experiment names it in `[[method]]`, with its settings beside the name:

```toml
[[method]]
name = "puf"                      # fedunlearn list strategies
mode = "regular"
```

Every strategy trains by federated averaging until somebody is to be forgotten, and afterwards without them; only what
differs is said below. The symbols are those of [notation.md](notation.md). What else stands in a file:
[experiment-file.md](experiment-file.md). Methods that clients run by themselves: [unlearning.md](unlearning.md). How
to write one: [CONTRIBUTING.md](../CONTRIBUTING.md).

"""
NOTE = """
What a strategy needs with its defaults. *online*: whoever is to be forgotten takes part in a round that forgets; in
a live federation their request waits until they can be reached. *single updates*: the server sees every update of a
round and not only their sum. *history*: it keeps results of earlier rounds, of each client the last or all.
`retrain` is part of every simulated experiment, and none names it.
"""
HEADINGS = ("strategy", "what it does", "removes influence", "needs")
REQUIRED = {"local-routine": {"routine": "fine-tune"}}
"""Keys without a default, for an example."""


def page() -> str:
    """Return the whole page."""
    found: dict[str, type[UnlearningStrategy]] = {
        name: plugins.find("strategies", name) for name in plugins.KINDS["strategies"].built_in
    }
    lines = [
        row(HEADINGS),
        row(["---"] * len(HEADINGS)),
        *(_line(name, each) for name, each in found.items()),
    ]
    return INTRODUCTION + "\n".join(lines) + "\n" + NOTE + "".join(_section(*each) for each in found.items())


def _line(name: str, strategy: type[UnlearningStrategy]) -> str:
    what = code_of(plugins.summary(strategy)).rstrip(".")
    removes = "yes" if strategy.forgets else "no"
    needs = strategy.needs(_example(name, strategy))
    words = ["online"] * (needs.online and strategy.forgets) + ["single updates"] * needs.individual
    if needs.keeps is not None:
        words.append(_kept(needs.keeps))
    return row([f"[`{name}`](#{name})", what, removes, ", ".join(words) or "–"])


def _kept(keeps: Keeps) -> str:
    models = " and global weights" if keeps.models else ""
    return f"history ({keeps.which} {keeps.what}{models})"


def _example(name: str, strategy: type[UnlearningStrategy]) -> Any:
    """Return settings: the defaults, and of what has none the example's."""
    return read(strategy.settings_type, REQUIRED.get(name, {}), Origin("the page"), name)


def _section(name: str, strategy: type[UnlearningStrategy]) -> str:
    section = f"\n## {name}\n\n{text_of(inspect.getmodule(strategy))}\n"
    if ("strategies", name) in plugins.HIDDEN:
        return section
    given = ", ".join(f'`{key} = "{value}"`' for key, value in REQUIRED.get(name, {}).items())
    words = strategy.describe(_example(name, strategy))
    return (
        f"{section}\nDefaults, and what else may be given: {settings_of(strategy.settings_type)}.\n\n"
        f"A certificate says, with {given or 'its defaults'}: “The federation forgets by {words}.”\n"
    )
