"""The scorecard, asked by (label, moment, metric). Absent and null are one thing here: ``None``.

What stands at one moment is a comparison, so every mean there is over the same cases (``report.selection``), and the
original beside it as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fedunlearn.errors import ConfigError, RunError
from fedunlearn.evaluation.declaration import Declaration, Place
from fedunlearn.evaluation.metrics import BUILT_IN
from fedunlearn.report.quality import QUALITIES, Quality
from fedunlearn.report.selection import Case, case_of, cases_with, common_cases, value_of
from fedunlearn.report.stat import Mark, Stat, mark_of, mean_cost, spread_of, stat_of
from fedunlearn.report.words import MOMENTS, SMOKE, VALIDATION, origin_words

REFERENCES = ("original", "retrain")
"""Labels that are no method: what was trained, and what it is held against."""

COMPARED = ("compare", "cap", "final")
"""The moments at which all methods are of one round."""
JUDGED = (*COMPARED, "recovered", "unlearned")
"""The moments at which a method may be judged, the fairest first."""
OWN = ("recovered",)
"""The moments at which every method is of a round of its own, and over cases of its own."""

Json = Mapping[str, Any]


@dataclass(frozen=True)
class TableLine:
    """One line of a table: a label at a moment.

    ``again``: the original once more, over the cases of a moment that are not all there are.
    """

    label: str
    at: str
    again: bool = False


class Scores:
    """Read-only view of one scorecard dictionary (``scorecard.json``, schema 2).

    Attributes
    ----------
    task : str
    declared : mapping of str to Declaration
        How metrics are read, by name, in the order of display: ours, then those of other packages.
    quality : Quality
        What this task's models are judged by.
    origin : str
        What must be known of where the data are from, see :func:`fedunlearn.report.words.origin_words`.
    smoke : bool
        Whether it was a smoke run, whose numbers mean nothing.
    unseen : str
        Which split the measures of the test split are of.
    engine : str
        What ran it, such as "ray, 4 workers"; empty where nobody knows.
    augmentation : str
        What training images were changed by, as the experiment file has it; empty where nobody knows.
    setting : str
        Which data are dealt out to how many clients: a case of another run is the same if this is; empty where nobody
        knows.
    directory : str
        Where the run lies; empty where nobody knows.

    Raises
    ------
    RunError
        When it is the scorecard of a task that this version does not know.
    """

    def __init__(self, scorecard: Json) -> None:
        task = str(scorecard.get("task") or "classification")
        if task not in QUALITIES:
            raise RunError(
                f"scorecard.json: task = {task!r}: must be one of {list(QUALITIES)}; update fedunlearn"
            )
        self.task = task
        self.declared = _declared(scorecard.get("declared") or [])
        self.quality: Quality = QUALITIES[task]
        self.origin = str(scorecard.get("origin") or "")
        self.smoke = bool(scorecard.get("smoke"))
        self.unseen = str(scorecard.get("unseen") or "test")
        self.engine = str(scorecard.get("engine") or "")
        self.augmentation = str(scorecard.get("augmentation") or "")
        self.setting = str(scorecard.get("setting") or "")
        self.directory = str(scorecard.get("directory") or "")
        self.experiment = str(scorecard.get("experiment") or "experiment")
        self.run = str(scorecard.get("run") or "")
        self.rows: list[Json] = [row for row in scorecard.get("rows") or [] if row.get("label")]
        self._card = scorecard
        self._by_group: dict[tuple[str, str], list[Json]] = {}
        for row in self.rows:
            self._by_group.setdefault((row["label"], row.get("at") or ""), []).append(row)
        present = list(dict.fromkeys(row["label"] for row in self.rows))
        self.methods: tuple[str, ...] = tuple(label for label in present if label not in REFERENCES)
        self.labels: tuple[str, ...] = tuple(ref for ref in REFERENCES if ref in present) + self.methods
        self._counts = {group: len(rows) for group, rows in self._by_group.items()}
        self._cases: dict[tuple[str, str], frozenset[Case]] = {}
        self._stats: dict[tuple[str, str, str, str], Stat] = {}

    def within(self, cases: frozenset[Case]) -> "Scores":
        """Return the same scorecard with the rows of these cases alone; ``count`` still knows how many there were."""
        rows = [row for row in self.rows if case_of(row) in cases]
        found = Scores({**self._card, "rows": rows})
        found._counts = self._counts
        return found

    @property
    def caveat(self) -> str:
        """What must be read before any number; empty where nothing must."""
        words = (SMOKE * self.smoke, origin_words(self.origin), VALIDATION * (self.unseen == "validation"))
        return " ".join(filter(None, words))

    def groups(self) -> list[tuple[str, str]]:
        """Return every (label, at) with a row: labels in order, moments as they happen."""
        moments = list(MOMENTS)

        def place(group: tuple[str, str]) -> tuple[int, int, str]:
            label, at = group
            return self.labels.index(label), moments.index(at) if at in moments else len(moments), at

        return sorted(self._by_group, key=place)

    def lines(self) -> list[TableLine]:
        """Return the lines of a table: the groups, and the original again for every moment that lacks some cases."""
        found = [TableLine(label, at) for label, at in self.groups()]
        firsts = [place for place, line in enumerate(found) if line.label == "original"]
        if not firsts:
            return found
        again = [TableLine("original", at, again=True) for at in MOMENTS if self._lacks_cases(at)]
        return found[: firsts[-1] + 1] + again + found[firsts[-1] + 1 :]

    def _lacks_cases(self, at: str) -> bool:
        if at in ("request", *OWN) or ("original", at) in self._by_group:
            return False
        cases = self.cases(at, self.quality.of("forget"))
        return bool(cases) and cases < {case_of(row) for row in self.rows_at("original", "request")}

    def is_method(self, label: str) -> bool:
        """Return whether the label forgets something."""
        return label in self.methods

    def rows_at(self, label: str, at: str) -> list[Json]:
        """Return the rows of one label at one moment, in file order."""
        return self._by_group.get((label, at), [])

    def cases(self, at: str, metric: str) -> frozenset[Case]:
        """Return the cases of a moment in which the original and all methods have a value; see ``common_cases``."""
        if (at, metric) not in self._cases:
            beside = {label: self.rows_at(label, at) for label in self.methods}
            common = common_cases(beside, metric)
            original = cases_with(self.over("original", at, common), metric)
            self._cases[at, metric] = original or common
        return self._cases[at, metric]

    def are_common(self, at: str) -> bool:
        """Whether the methods of a moment have any case in common by which they can be compared."""
        metric = self.quality.of("forget")
        several = [label for label in self.methods if cases_with(self.rows_at(label, at), metric)]
        return len(several) < 2 or bool(self.cases(at, metric))

    def selected(self, label: str, at: str, metric: str) -> list[Json]:
        """Return the rows that a number of a label at a moment is about.

        They are of the cases that all methods have there; of its own where there are none such, and in ``OWN``. The
        original, which was measured when the request arrived, has rows beside every moment.
        """
        rows = self.rows_at(label, at)
        if label == "original" and not rows:
            rows = self.rows_at(label, "request")
        cases = frozenset() if at in OWN else self.cases(at, metric)
        return [row for row in rows if case_of(row) in cases] if cases else rows

    def over(self, label: str, at: str, cases: frozenset[Case]) -> list[Json]:
        """Return a label's rows of these cases at a moment, the original's of when the request arrived."""
        rows = self.rows_at(label, at) or (self.rows_at(label, "request") if label == "original" else [])
        return [row for row in rows if case_of(row) in cases]

    def stat(self, label: str, at: str, kind: str, metric: str) -> Stat:
        """Return a statistic over the rows that are selected: ``kind`` is metrics, gap, abs_gap or floor."""
        key = (label, at, kind, metric)
        if key not in self._stats:
            self._stats[key] = stat_of(self.selected(label, at, metric), kind, metric)
        return self._stats[key]

    def floor_spread(self, label: str, at: str, metric: str) -> tuple[float, float, int] | None:
        """Return (least, largest, how many) distances between retrainings, None where only one is known."""
        return spread_of(self.selected(label, at, metric), metric)

    def mark(self, label: str, at: str, metric: str) -> Mark:
        """Return what a label's gap in a metric shows, see ``report.stat.mark_of``; empty for what is no method."""
        if not self.is_method(label) or not self.metric(metric).marked:
            return ""
        rows = self.selected(label, at, metric)
        cases = cases_with(rows, metric)
        return mark_of(rows, self.over("original", at, cases), metric)

    def count(self, label: str, at: str) -> int:
        """Return how many rows a label has at a moment."""
        return self._counts.get((label, at), 0)

    def asked(self, label: str, at: str) -> int:
        """Return how many cases a label could have at a moment: those that it was asked to forget."""
        first = "unlearned" if self.is_method(label) else "request"
        return max(0 if at == "final" else self.count(label, first), self.count(label, at))

    def counted(self, line: TableLine) -> str:
        """Return over how many cases a line goes: ``2``, ``1/2`` of those asked, ``1 own`` of no others.

        Own cases cannot be compared with those of other methods. In ``OWN`` they are counted alone: how many of how
        many have recovered stands beside them.
        """
        metric = self.quality.of("forget")
        n = sum(
            value_of(row, "metrics", metric) is not None for row in self.selected(line.label, line.at, metric)
        )
        every = self.asked(line.label, line.at)
        if self.is_method(line.label) and not self.are_common(line.at):
            return f"{n} own"
        return str(n) if n == every or line.at in OWN else f"{n}/{every}"

    def awaited(self, label: str, at: str) -> list[Json]:
        """Return the rows of which recovery was awaited."""
        return [row for row in self.rows_at(label, at) if row.get("recovered") is not None]

    def censored(self, label: str, at: str) -> int:
        """Return how many of them never recovered."""
        return sum(not row["recovered"] for row in self.awaited(label, at))

    def diverged(self, label: str, at: str) -> int:
        """Return how many rows have no model, because its weights became no numbers."""
        return sum(bool(row.get("diverged")) for row in self.rows_at(label, at))

    def diverged_at(self, label: str) -> str | None:
        """Return the fairest moment at which the label had no model in some of the cases, if there is any."""
        return next((at for at in JUDGED if self.diverged(label, at)), None)

    def failed(self, label: str, at: str) -> int:
        """Return how many rows have no numbers, because the forgetting failed."""
        return sum(bool(row.get("failed")) for row in self.rows_at(label, at))

    def failures(self) -> dict[str, list[str]]:
        """Return by label why its forgetting failed, each reason once, of those where it did."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            if row.get("failed"):
                why = str(row.get("reason") or "failed").partition("; recovery: ")[0]
                reasons = found.setdefault(row["label"], [])
                reasons += [why] * (why not in reasons)
        return found

    def failed_at(self, label: str) -> str | None:
        """Return the fairest moment at which the label's forgetting had failed in some of the cases, if any."""
        return next((at for at in JUDGED if self.failed(label, at)), None)

    def cost(self, label: str, at: str, name: str) -> float | None:
        """Return the mean cost over the rows that are selected and that recorded it."""
        return mean_cost(self.selected(label, at, self.quality.of("forget")), name)

    def cost_beside(self, label: str, at: str, other: str, other_at: str, name: str) -> float | None:
        """Return the mean cost of another line over the cases of a label's line at a moment."""
        cases = frozenset(map(case_of, self.selected(label, at, self.quality.of("forget"))))
        return mean_cost(self.over(other, other_at, cases), name)

    @cached_property
    def judged(self) -> str | None:
        """The moment at which methods are compared: of one round, over as many methods and cases as can be."""
        metric = self.quality.of("forget")

        def size(at: str) -> tuple[int, int]:
            known = (cases_with(self.rows_at(label, at), metric) for label in self.methods)
            return sum(map(bool, known)), len(self.cases(at, metric))

        best = max(COMPARED, key=size)  # of equal ones the first
        others = (at for at in (*OWN, "unlearned") if any(size(at)))
        return best if any(size(best)) else next(others, None)

    @property
    def judged_cases(self) -> frozenset[Case]:
        """The cases of that moment."""
        return self.cases(self.judged, self.quality.of("forget")) if self.judged else frozenset()

    def judged_at(self, label: str) -> str | None:
        """Return the moment at which a label is judged: where all are compared, if its gap is known there."""
        metric = self.quality.of("forget")
        moments = (self.judged, *JUDGED)
        return next((at for at in moments if at and self.stat(label, at, "abs_gap", metric).n), None)

    def recovery(self, label: str) -> tuple[Stat, int, int]:
        """Return (recovery rounds, how many never recovered, of how many) of one label.

        Every answered request has a row at ``unlearned``; later moments lack those that did not get so far.
        Superseded requests are in neither number: their recovery was not awaited.
        """
        at = next((at for at in ("unlearned", *JUDGED) if self.rows_at(label, at)), "")
        stat, never = self.recovery_at(label, at)
        return stat, never, stat.n + never

    def recovery_at(self, label: str, at: str) -> tuple[Stat, int]:
        """Return the recovery rounds of a label's rows at a moment, and how many of them never recovered.

        Of ``OWN``, which holds what recovered alone, those of all that it was asked.
        """
        if at in OWN and self.rows_at(label, "unlearned"):
            at = "unlearned"
        rounds = [row.get("recovery_rounds") for row in self.awaited(label, at)]
        return Stat(tuple(number for number in rounds if number is not None)), self.censored(label, at)

    def metrics(self) -> list[str]:
        """Return the metrics with a value in some row: those declared in their order, then all others by name."""
        names = {
            name
            for row in self.rows
            for name, value in (row.get("metrics") or {}).items()
            if value is not None
        }
        known = [name for name in self.declared if name in names]
        return known + sorted(names.difference(known))

    def metric(self, name: str) -> Declaration:
        """Return how a metric is read; one that nobody has declared is shown as it is."""
        return self.declared.get(name) or Declaration(name, title=name.replace("_", " "))

    def shown(self, place: Place) -> list[Declaration]:
        """Return the metrics that this task has at a place of the report, whether or not a row has them."""
        return [each for each in self.declared.values() if place in each.show and self.task in each.tasks]


def _declared(foreign: Any) -> dict[str, Declaration]:
    """Return ours, then those that a scorecard declares."""
    found: dict[str, Declaration] = dict(BUILT_IN)
    if not isinstance(foreign, list) or not all(isinstance(entry, Mapping) for entry in foreign):
        raise RunError("scorecard.json: declared: must be a list of metrics; run the experiment again")
    for entry in foreign:
        try:
            metric = Declaration.from_dict(entry)
        except ConfigError as error:
            raise RunError(f"scorecard.json: declared: {error}; rerun the experiment") from error
        found.setdefault(metric.name, metric)
    return found
