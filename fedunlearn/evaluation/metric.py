"""What a metric is: one decorated function that declares how it is read and what it needs.

::

    @metric("forget_entropy", title="forget entropy", unit="nats", better="retrain", tasks=("classification",))
    def forget_entropy(evidence: Evidence) -> float:
        \"\"\"Mean entropy of the outputs on the training data to forget.\"\"\"
        ...

That is all: scorecard, report, ``fedunlearn list metrics`` and sweeps read the declaration. See docs/scorecard.md for
the metrics that there are, and for how another package brings its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal, get_args

from fedunlearn.config.settings import NoSettings
from fedunlearn.errors import ConfigError, one_line
from fedunlearn.evaluation.evidence import Evidence
from fedunlearn.evaluation.scored import QUALITY, Unmeasurable

Need = Literal["outputs", "weights", "retrained", "population"]
"""The model's outputs or its weights, the model retrained without the forgotten data, many such models."""
Better = Literal["retrain", "higher", "lower"]
"""Which values are better: those near the retrained model's, or the higher or lower ones."""
Place = Literal["terminal", "markdown", "page", "plot"]
"""Where a metric is shown beside the page's full tables: the terminal's table, which has little room, the first table
of ``scorecard.md`` and of the page, and a plot of its gaps."""

TASKS = tuple(QUALITY)
_WORDS = {
    "retrain": "nearer to retrain's",
    "higher": "higher, at least retrain's",
    "lower": "lower, at most retrain's",
}
_COMPARED_WORDS = {"higher": "higher, up to {value:g}", "lower": "lower, down to the floor"}


@dataclass(frozen=True)
class Declaration:
    """How the values of a metric are read.

    Attributes
    ----------
    name : str
        In ``scorecard.json``.
    title : str
        What a reader sees.
    unit : str
        "%" (0 to 100), "nats", "mm", …; of a pure number its range, such as "0 to 1".
    better : "retrain", "higher" or "lower"
    description : str
        One line: what is measured.
    tasks : tuple of str
        Which experiments it is for: "classification", "segmentation".
    needs : tuple of str
        "outputs", "weights", "retrained", "population". Where one of them is missing the value is null.
    heading : str
        The title where there is little room.
    show : tuple of str
        "terminal", "markdown", "page", "plot"; the page's full tables show every metric.
    retrained_value : float or None
        The retrained model's own value, where the metric compares with that model: 0 of a distance.
    marked : bool
        Whether a gap within the floor is a finding. Not of distances in weights or outputs: methods share the initial
        weights of the model they are held against, further retrainings do not.
    """

    name: str
    title: str
    unit: str = ""
    better: Better = "retrain"
    description: str = ""
    tasks: tuple[str, ...] = TASKS
    needs: tuple[Need, ...] = ("outputs",)
    heading: str = ""
    show: tuple[Place, ...] = ()
    retrained_value: float | None = None
    marked: bool = True

    @property
    def gap_unit(self) -> str:
        """What its gap is counted in: points, a unit, or nothing."""
        return "points" if self.unit == "%" else "" if self.unit[:1].isdigit() else self.unit

    @property
    def better_words(self) -> str:
        """Which values are better, in words."""
        if self.retrained_value is None or self.better == "retrain":
            return _WORDS[self.better]
        return _COMPARED_WORDS[self.better].format(value=self.retrained_value)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, as in a scorecard with metrics of other packages."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name in _DECLARED
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Declaration:
        """Return what ``as_dict`` describes, if it could be declared like this.

        Raises
        ------
        ConfigError
            With one line that names what is wrong.
        """
        known: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in entry.items()
            if name in _DECLARED
        }
        name = known.setdefault("name", None)
        found = cls(**{"title": None, **known})
        _check(found, f"metric {name!r}")
        return found


_DECLARED = frozenset(each.name for each in fields(Declaration))


@dataclass(frozen=True, kw_only=True)
class Metric(Declaration):
    """A declared metric; called with the evidence it returns the value, or raises ``Unmeasurable``.

    Attributes
    ----------
    compute : callable
        The decorated function.
    applies : callable or None
        Whether the metric has a meaning for this evidence; where it has none, a row does not name it.
    """

    settings_type: ClassVar[type] = NoSettings

    compute: Callable[[Evidence], float] = field(compare=False, repr=False)
    applies: Callable[[Evidence], bool] | None = field(default=None, compare=False, repr=False)

    def __call__(self, evidence: Evidence) -> float:
        """Return the value, computed once for each evidence.

        Raises
        ------
        Unmeasurable
            With the reason that is shown beside the null.
        """
        for need in self.needs:
            if why := evidence.lacks(need):
                raise Unmeasurable(why)
        return evidence.once(f"metric {self.name}", lambda: self._value(evidence))

    def _value(self, evidence: Evidence) -> float:
        if not self.foreign:
            return self.compute(evidence)
        try:
            return float(self.compute(evidence))
        except (Unmeasurable, MemoryError):
            raise
        except Exception as error:  # another package's defect costs its own value and no other
            raise Unmeasurable(
                f"{self.module} failed: {type(error).__name__}: {one_line(str(error))}"
            ) from error

    @property
    def module(self) -> str:
        """The module that defines it."""
        return self.compute.__module__

    @property
    def place(self) -> str:
        """Module and name of its function."""
        return f"{self.module}:{getattr(self.compute, '__qualname__', '')}"

    def is_meant_for(self, evidence: Evidence) -> bool:
        """Whether the metric has a meaning for this evidence."""
        try:
            return self.applies is None or bool(self.applies(evidence))
        except Exception:
            if self.foreign:
                return True  # why there is no value says more
            raise

    @property
    def foreign(self) -> bool:
        """Whether another package defines it."""
        return self.module.partition(".")[0] != __name__.partition(".")[0]


def metric(
    name: str,
    *,
    title: str,
    unit: str,
    better: Better,
    tasks: tuple[str, ...] = TASKS,
    needs: tuple[Need, ...] = ("outputs",),
    description: str | None = None,
    heading: str = "",
    show: tuple[Place, ...] = ("markdown", "page"),
    retrained_value: float | None = None,
    marked: bool = True,
    applies: Callable[[Evidence], bool] | None = None,
) -> Callable[[Callable[[Evidence], float]], Metric]:
    """Declare a metric; the decorated function becomes a :class:`Metric`.

    Parameters
    ----------
    description
        Default: the first line of the function's docstring.

    Others are as in :class:`Declaration` and :class:`Metric`.

    Raises
    ------
    ConfigError
        With one line that names the metric, what is wrong and what would be right.
    """

    def declare(function: Callable[[Evidence], float]) -> Metric:
        doc = (function.__doc__ or "").strip().partition("\n")[0]
        declared = Metric(
            name=name,
            title=title,
            unit=unit,
            better=better,
            description=(doc if description is None else description).removesuffix("."),
            tasks=tasks,
            needs=needs,
            heading=heading,
            show=show,
            retrained_value=retrained_value,
            marked=marked,
            compute=function,
            applies=applies,
        )
        _check(declared, f"metric {declared.place}")
        _claim(declared)
        return declared

    return declare


def _check(declared: Declaration, where: str) -> None:
    """Refuse what could not be shown or computed; ``where`` is how the line begins."""
    if not isinstance(declared.name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", declared.name):
        raise ConfigError(
            f"{where}: the name must be lower-case letters, digits and _, such as 'forget_accuracy'"
        )
    for key in ("title", "unit", "description"):
        value = getattr(declared, key)
        if not isinstance(value, str) or not value.strip():
            how = "; give the function a docstring" if key == "description" else ""
            raise ConfigError(f"{where}: {key} = {value!r}: must say something{how}")
    if declared.better not in get_args(Better):
        raise ConfigError(
            f"{where}: better = {declared.better!r}: must be one of {_listed(get_args(Better))}"
        )
    for key, allowed in (("tasks", TASKS), ("needs", get_args(Need)), ("show", get_args(Place))):
        value = getattr(declared, key)
        if not isinstance(value, tuple) or not set(value) <= set(allowed) or (key == "tasks" and not value):
            raise ConfigError(f"{where}: {key} = {value!r}: must be a tuple of {_listed(allowed)}")
    value = declared.retrained_value
    if value is not None and (not isinstance(value, int | float) or not math.isfinite(value)):
        raise ConfigError(f"{where}: retrained_value = {value!r}: must be a number, or None")
    if not isinstance(declared.heading, str) or ("terminal" in declared.show and not declared.heading):
        raise ConfigError(f"{where}: heading = {declared.heading!r}: must be a word for the terminal's table")


def _listed(allowed: tuple[str, ...]) -> str:
    return ", ".join(map(repr, allowed))


_defined: dict[str, Metric] = {}


def defined() -> Mapping[str, Metric]:
    """Return every metric that was defined in this process, by name."""
    return _defined


def _claim(declared: Metric) -> None:
    """Refuse a name that another function has; ours come first, whoever is imported first."""
    earlier = _defined.setdefault(declared.name, declared)
    if earlier.place != declared.place and declared.foreign:
        raise ConfigError(
            f"metric {declared.place}: {earlier.place} has the name {declared.name!r}; take another one"
        )
    _defined[declared.name] = declared
