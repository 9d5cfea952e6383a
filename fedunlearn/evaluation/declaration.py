"""How the values of a metric are read: what scorecard, report, ``fedunlearn list metrics`` and sweeps go by."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from fedunlearn.errors import ConfigError
from fedunlearn.evaluation.scored import QUALITY

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
        check(found, f"metric {name!r}")
        return found


_DECLARED = frozenset(each.name for each in fields(Declaration))


def check(declared: Declaration, where: str) -> None:
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
