"""The file of a sweep: which experiment, what is tried, and on what else than the experiment it is tried."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from fedunlearn import config
from fedunlearn.config import Experiment, MethodConfig
from fedunlearn.config.components import keys_of
from fedunlearn.config.conditions import Count, at_least, distinct, not_empty
from fedunlearn.config.source import parse, read_text, with_overrides
from fedunlearn.config.targets import TargetConfig, Targets
from fedunlearn.config.toml_text import dumps
from fedunlearn.config.toml_tree import Origin, plain, read
from fedunlearn.evaluation.metric import Metric
from fedunlearn.evaluation.metrics import computed
from fedunlearn.home import expanded
from fedunlearn.sweep.space import Choice, Dimensions, check_space, drawn, grid, read_space

SUFFIX = "-tuned"


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """The keys of the file; ``space`` has a table for each method that is tried, by its label.

    Attributes
    ----------
    experiment
        File of the experiment, beside this one; it has ``targets`` or ``[[target]]`` entries.
    seeds
        None of the experiment's.
    targets, target
        What the trials forget; default: what the experiment says, which other seeds draw or deal out anew.
    search
        "random": ``trials`` drawn settings per method; "grid": every combination of listed values.
    draw
        The seed that trials are drawn by.
    by
        The metric by which a method's trials are compared, the mean over seeds and targets: one that compares with
        the retrained model by itself, such as Average Gap, of which the smallest is best. It is of the validation
        split.
    at
        The round it is taken after.
    space
        Label → what is tried, see :mod:`fedunlearn.sweep.space`.
    """

    name: config.Name
    experiment: str
    seeds: Annotated[tuple[Annotated[int, at_least(0)], ...], not_empty, distinct]
    targets: Targets | None = None
    target: tuple[TargetConfig, ...] = ()
    search: Literal["random", "grid"] = "random"
    trials: Count = 16
    draw: Annotated[int, at_least(0)] = 0
    by: str = "average_gap"
    at: Literal["unlearned", "recovered", "cap"] = "unlearned"
    space: dict[str, Any] = field(default_factory=dict)
    smoke: dict[str, Any] = field(default_factory=dict)
    smoke_run: bool = False


@dataclass(frozen=True)
class Trial:
    """Settings to be tried: ``number`` 0 are those that the experiment has."""

    number: int
    settings: Mapping[str, Any]
    method: MethodConfig


class Sweep:
    """A sweep with its experiment and all of its trials.

    Parameters
    ----------
    settings
        The file.
    experiment
        That it names.
    space
        Label → dimensions.
    """

    def __init__(
        self, settings: SweepConfig, experiment: Experiment, space: Mapping[str, Dimensions]
    ) -> None:
        self.settings = settings
        self.experiment = experiment
        self._space = space

    @property
    def goal(self) -> Metric:
        """The metric by which trials are compared."""
        return goals(self.experiment)[self.settings.by]

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the methods that are tried, in the order of the experiment."""
        return tuple(method.label for method in self.experiment.methods if method.label in self._space)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of everything that can change what is found."""
        tree = plain(self.settings)
        tree.pop("smoke", None)
        content = {"sweep": tree, "experiment": config.digest(self.experiment)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def trials(self, label: str) -> tuple[Trial, ...]:
        """Return the trials of a method, the experiment's own settings first."""
        own = plain(next(method for method in self.experiment.methods if method.label == label))
        space = self._space[label]
        found = [Trial(0, {}, _method(own, {}, f"{label}-0"))]
        if self.settings.search == "grid":
            tried = grid(space)
        else:
            tried = drawn(space, label, seed=self.settings.draw, trials=self.settings.trials)
        for number, settings in enumerate(tried, start=1):
            found.append(Trial(number, settings, _method(own, settings, f"{label}-{number}")))
        return tuple(found)

    def experiment_of(self, label: str) -> Experiment:
        """Return the experiment that runs a method's trials, each as a method of its own, without the test split."""
        return self._derived(
            {
                "name": f"{self.settings.name}-{label}",
                "seeds": list(self.settings.seeds),
                "method": [plain(trial.method) for trial in self.trials(label)],
                "measures": {**plain(self.experiment.measures), "unseen": "validation"},
                **self._forgets(),
            },
            f"trials of {label}",
        )

    def tuned(self, chosen: Mapping[str, Trial]) -> Experiment:
        """Return the experiment with every method that was tried twice: as it was, and as it was chosen."""
        methods = []
        for method in self.experiment.methods:
            methods.append(plain(method))
            if method.label in chosen:
                entry = plain(chosen[method.label].method)
                methods.append(entry | {"label": f"{method.label}{SUFFIX}"})
        return self._derived({"name": f"{self.experiment.name}{SUFFIX}", "method": methods}, "tuned")

    def _forgets(self) -> dict[str, Any]:
        if self.settings.targets is not None:
            return {"targets": plain(self.settings.targets), "target": None}
        if self.settings.target:
            return {"target": plain(self.settings.target), "targets": None}
        return {}

    def _derived(self, changes: Mapping[str, Any], place: str) -> Experiment:
        tree = {key: value for key, value in plain(self.experiment).items() if key != "smoke"}
        tree = {key: value for key, value in (tree | dict(changes)).items() if value is not None}
        return config.loads(dumps(tree), place)


def _check_values(method: MethodConfig, dimensions: Dimensions, path: str, origin: Origin) -> None:
    """Refuse what could be drawn for a method and that it, or its local routine, does not take."""
    for key in dimensions:
        table = getattr(method.settings, "settings", None)
        if is_dataclass(table) and key in keys_of(type(table)):
            raise origin.error(f"{path}.{key}", None, f"write it under [{path}.settings]")
    check_space(dimensions, method, path, origin)


def _method(entry: Mapping[str, Any], settings: Mapping[str, Any], label: str) -> MethodConfig:
    """Return a ``[[method]]`` entry with settings put in by their dotted keys, and a label."""
    tree: dict[str, Any] = json.loads(json.dumps(entry))
    for path, value in settings.items():
        table = tree
        *outer, last = path.split(".")
        for key in outer:
            table = table.setdefault(key, {})
        table[last] = value
    return read(MethodConfig, tree | {"label": label}, Origin(f"the trials of {label.rpartition('-')[0]}"))


def load(path: Path, *, overrides: tuple[str, ...] = (), smoke: bool = False) -> Sweep:
    """Read a sweep's file and the experiment that it names.

    Raises
    ------
    ConfigError
        With one line that names key, value, place and remedy.
    """
    table = parse(read_text(path), str(path))
    tree, origin = with_overrides(table, str(path), overrides, smoke=smoke)
    if "method" in tree and "space" not in tree:
        raise origin.error(
            "method", None, "belongs to an experiment, which fedunlearn run takes; a sweep has [space]"
        )
    settings = read(SweepConfig, tree, origin)
    experiment = config.load(path.parent / expanded(settings.experiment), smoke=smoke)
    space = {}
    for label, dimensions in settings.space.items():
        if not isinstance(dimensions, Mapping):
            raise origin.error(f"space.{label}", dimensions, f"must be a table, written [space.{label}]")
        space[label] = read_space(dimensions, f"space.{label}", origin)
    sweep = Sweep(settings, experiment, space)
    _check(sweep, space, origin)
    return sweep


def goals(experiment: Experiment) -> dict[str, Metric]:
    """Return the metrics of an experiment by which trials can be compared: which value is best is known of them."""
    metrics = computed(experiment.data.task, experiment.measures.metrics)
    return {
        name: metric
        for name, metric in metrics.items()
        if metric.retrained_value is not None and metric.better != "retrain"
    }


def _check(sweep: Sweep, space: Mapping[str, Dimensions], origin: Origin) -> None:
    settings, experiment = sweep.settings, sweep.experiment
    if settings.by not in (known := goals(experiment)):
        raise origin.error("by", settings.by, "must be one of " + ", ".join(f'"{name}"' for name in known))
    if not space:
        raise origin.error(
            "space",
            None,
            "is missing; name the values to try, such as [space.salun.settings] lr = [0.01, 0.1]",
        )
    labels = [method.label for method in experiment.methods]
    for label, dimensions in space.items():
        if label not in labels:
            raise origin.error(
                f"space.{label}",
                None,
                f"{settings.experiment} has no such method; it has {', '.join(labels)}",
            )
        if not dimensions:
            raise origin.error(f"space.{label}", None, "must name at least one setting")
        method = next(m for m in experiment.methods if m.label == label)
        _check_values(method, dimensions, f"space.{label}", origin)
        for key, dimension in dimensions.items():
            if settings.search == "grid" and not isinstance(dimension, Choice):
                raise origin.error(
                    f"space.{label}.{key}", None, 'must be a list of values with search = "grid"'
                )
    if not experiment.branching:
        raise origin.error(
            "experiment",
            settings.experiment,
            "must have targets or [[target]] entries, which a sweep measures",
        )
    if experiment.data.validation == 0:
        raise origin.error(
            "experiment",
            settings.experiment,
            "must hold out data.validation > 0, which trials are measured on",
        )
    shared = sorted(set(settings.seeds) & set(experiment.seeds))
    if shared and not experiment.smoke_run:
        raise origin.error(
            "seeds",
            list(settings.seeds),
            f"must not be seeds of {settings.experiment} ({shared[0]} is): those are kept for measuring",
        )
    if settings.targets is not None and settings.target:
        raise origin.error("target", None, "give either targets or [[target]] entries, not both")
    forgotten = {f for entry in experiment.target if not entry.samples for f in entry.classes or ()}
    for index, entry in enumerate(settings.target or experiment.target, start=1):
        shared_classes = sorted(forgotten.intersection(entry.classes or ()))
        if shared_classes and not entry.samples:
            raise origin.error(
                f"target[{index}].classes",
                list(entry.classes or ()),
                f"{settings.experiment} forgets class {shared_classes[0]}; choose other classes to search on",
            )
