"""The metrics that there are: ours, one file a family, and those of other packages.

A metric of ours is a decorated function in one of the files here, in the order of scorecard and report. Another
package names its own by an entry point of the group ``fedunlearn.metrics``, or an experiment names it as
``[measures] metrics = ["package.module:name"]``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fedunlearn import plugins
from fedunlearn.errors import ConfigError
from fedunlearn.evaluation.metric import Metric, defined
from fedunlearn.evaluation.metrics import quality as quality  # isort: split

from fedunlearn.evaluation.metrics import masks as masks  # isort: split

from fedunlearn.evaluation.metrics import attacks as attacks  # isort: split

from fedunlearn.evaluation.metrics import gaps as gaps  # isort: split

from fedunlearn.evaluation.metrics import distances as distances

BUILT_IN: Mapping[str, Metric] = {name: each for name, each in defined().items() if not each.foreign}
"""Ours by name, in the order of scorecard and report."""


class Discovered(NamedTuple):
    """Metrics of other packages by their names, and why others cannot be had, by the names of their entry points."""

    metrics: dict[str, Metric]
    broken: dict[str, str]


def discover() -> Discovered:
    """Find the metrics of other packages."""
    found = Discovered({}, plugins.broken("metrics"))
    for name in plugins.names("metrics"):
        if name not in found.broken:
            metric: Metric = plugins.find("metrics", name)
            if metric.name in BUILT_IN:
                found.broken[name] = f"{metric.place}: there is already a {metric.name!r}"
            else:
                found.metrics[metric.name] = metric
    return found


def computed(task: str, named: Sequence[str] = ()) -> dict[str, Metric]:
    """Return what an experiment measures, by name: ours of its task, other packages' of its task, and those it names.

    Parameters
    ----------
    named
        As in ``[measures] metrics``: ``"package.module:object"``, or the name of an entry point.

    Raises
    ------
    ConfigError
        One that is named cannot be had, or is for another task.
    """
    every = {**BUILT_IN, **discover().metrics}
    found = {name: each for name, each in every.items() if task in each.tasks}
    for number, reference in enumerate(named, start=1):
        try:
            metric = _named(reference, every)
            if task not in metric.tasks:
                tasks = " and ".join(metric.tasks)
                raise ConfigError(f"is for {tasks}, but the experiment is for {task}; leave it out")
        except ConfigError as error:
            raise ConfigError(f'measures.metrics[{number}] = "{reference}": {error}') from error
        found[metric.name] = metric
    return found


def _named(reference: str, known: Mapping[str, Metric]) -> Metric:
    if reference in known:
        return known[reference]
    if ":" not in reference and reference not in plugins.names("metrics"):
        close = difflib.get_close_matches(reference, known, n=1)
        hint = f'; did you mean "{close[0]}"?' if close else ""
        raise ConfigError(f'must be "package.module:object", or a metric of `fedunlearn list metrics`{hint}')
    metric: Metric = plugins.find("metrics", reference)
    if metric.name in BUILT_IN and BUILT_IN[metric.name] is not metric:
        raise ConfigError(
            f"is broken: {metric.place}: there is already a {metric.name!r}; choose another name"
        )
    return metric
