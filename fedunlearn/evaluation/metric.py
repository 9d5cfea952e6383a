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

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from fedunlearn.config.settings import NoSettings
from fedunlearn.errors import ConfigError, one_line
from fedunlearn.evaluation.declaration import TASKS, Better, Declaration, Need, Place, check
from fedunlearn.evaluation.evidence import Evidence
from fedunlearn.evaluation.scored import Unmeasurable


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
        check(declared, f"metric {declared.place}")
        _claim(declared)
        return declared

    return declare


_defined: dict[str, Metric] = {}


def defined() -> Mapping[str, Metric]:
    """Return every metric that was defined in this process, by name."""
    return _defined


def _claim(declared: Metric) -> None:
    """Refuse a name that another function has; ours come first, whoever is imported first."""
    earlier = _defined.setdefault(declared.name, declared)
    if earlier.place != declared.place and declared.foreign:
        raise ConfigError(
            f"metric {declared.place}: {earlier.place} already has the name {declared.name!r}; choose another"
        )
    _defined[declared.name] = declared
