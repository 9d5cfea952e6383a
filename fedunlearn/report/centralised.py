"""The scorecard in the terms of centralised unlearning: UA, RA, TA, MIA-efficacy, Average Gap, ToW, run time.

UA = 100 − forget accuracy, RA and TA are retain and test accuracy, MIA-efficacy = 100 − ``mia_svc``: the share of the
forgotten data that the attack takes for data never trained on. Each stands with its |gap| to retraining. Where whole
classes are forgotten TA is of the other classes' test rows, as it is in Average Gap and ToW.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from fedunlearn.evaluation.metrics.attacks import mia_svc
from fedunlearn.evaluation.metrics.gaps import average_gap, tug_of_war
from fedunlearn.evaluation.metrics.quality import BY_TASK, TRIPLET, retain_test_accuracy
from fedunlearn.html.markup import Markup, join, table, tag
from fedunlearn.report.scores import Scores, TableLine
from fedunlearn.report.words import NOTHING, magnitude, moment, number, spread

TASK = "classification"
"""The task in which these terms have a meaning."""
FORGET, RETAIN, TEST = (BY_TASK[TASK][on].name for on in TRIPLET)
TERMS = (("UA", FORGET, True), ("RA", RETAIN, False), ("TA", TEST, False), ("MIA-eff.", mia_svc.name, True))
"""Heading, metric, and whether it is 100 minus the metric."""
HEADINGS = (*(heading for heading, _, _ in TERMS), "Avg. Gap", "ToW", "unlearning", "recovery", "share")
LEGEND = (
    "UA = 100 − forget accuracy, RA, TA: retain and test accuracy (where whole classes are forgotten, of the other "
    "classes), MIA-eff. = 100 − MIA-SVC, all in %, in brackets the |gap| to retraining; Avg. Gap: the mean of the "
    "four; ToW: product of 1 − |gap| of UA, RA, TA; wall time of unlearning, of recovery, which is the rounds from "
    "then until the moment named, and both as a share of retraining's until that moment; ± standard deviation over "
    "seeds and requests; n: cases (a seed and what is forgotten) that all methods have, 1/2: one of two"
)

_LAYOUT: dict[str, Any] = {"box": SIMPLE_HEAD, "padding": (0, 1, 0, 0), "pad_edge": False, "show_edge": False}


class Line(NamedTuple):
    """One label at the moment at which it is judged; the original and retrain over the same cases."""

    label: str
    at: str
    n: str
    """Over how many cases, see ``Scores.counted``."""
    cells: tuple[str, ...]
    """Under ``HEADINGS``."""


def lines(scores: Scores, *, spreads: bool = True) -> list[Line]:
    """Return a line for every label; none where models are judged by something else than accuracy.

    Parameters
    ----------
    spreads
        Whether values stand with their standard deviation over seeds and requests; Average Gap always does.
    """
    if scores.task != TASK:
        return []
    return [_line(scores, label, at, spreads) for label in scores.labels if (at := _moment(scores, label))]


def _moment(scores: Scores, label: str) -> str | None:
    if scores.is_method(label):
        return scores.judged_at(label)
    judged = scores.judged
    if judged is not None and scores.selected(label, judged, scores.quality.of("forget")):
        return judged
    return "request" if scores.rows_at(label, "request") else None


def _line(scores: Scores, label: str, at: str, spreads: bool) -> Line:
    cells = [
        _value(scores, label, at, _judged(scores, label, at, metric), flipped, spreads)
        for _, metric, flipped in TERMS
    ]
    if label == "retrain":
        cells += ["", ""]
    else:
        gap, tow = (scores.stat(label, at, "metrics", name) for name in (average_gap.name, tug_of_war.name))
        cells.append(spread(number(gap.mean), number(gap.std)))
        cells.append(spread(number(tow.mean, 3), number(tow.std, 3) if spreads else NOTHING))
    again = label == "original" and not scores.rows_at(label, at)
    counted = scores.counted(TableLine(label, at, again))
    return Line(label, "request" if again else at, counted, (*cells, *_seconds(scores, label, at)))


def _judged(scores: Scores, label: str, at: str, metric: str) -> str:
    """Return what Average Gap takes in a metric's place: the remaining classes' test rows, if these alone."""
    remaining = scores.stat(label, at, "metrics", retain_test_accuracy.name)
    all_of_them = remaining.n and remaining.n == scores.stat(label, at, "metrics", TEST).n
    return retain_test_accuracy.name if metric == TEST and all_of_them else metric


def _value(scores: Scores, label: str, at: str, metric: str, flipped: bool, spreads: bool) -> str:
    value, gap = scores.stat(label, at, "metrics", metric), scores.stat(label, at, "abs_gap", metric)
    mean = 100 - value.mean if flipped and value.mean is not None else value.mean
    words = spread(number(mean), number(value.std) if spreads else NOTHING)
    return words if label == "retrain" or gap.mean is None else f"{words} ({number(gap.mean)})"


def _seconds(scores: Scores, label: str, at: str) -> tuple[str, str, str]:
    """Return the seconds of unlearning, of what followed until the moment, and both as a share of retraining's.

    Retraining's are those until the same moment; of a retrained model they stand alone, in the first place.
    """
    if label == "original":
        return "", "", ""
    spent = scores.cost(label, at, "seconds")
    if not scores.is_method(label):
        return magnitude(spent, "s"), "", ""
    unlearning = scores.cost_beside(label, at, label, "unlearned", "seconds")
    whole = scores.cost_beside(label, at, "retrain", at, "seconds")
    if unlearning is None or spent is None:
        return NOTHING, NOTHING, NOTHING
    share = f"{number(100 * spent / whole)} %" if whole else NOTHING
    return magnitude(unlearning, "s"), magnitude(max(0.0, spent - unlearning), "s"), share


def markdown_section(scores: Scores) -> list[str]:
    """Return lines of Markdown: a heading, a table and its legend; nothing where the terms have no meaning."""
    found = lines(scores)
    if not found:
        return []
    head = ["method", "at", "n", *HEADINGS]
    rows = [[line.label.replace("|", "\\|"), line.at, line.n, *line.cells] for line in found]
    grid = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    legend = f"{LEGEND}.".replace("|", "\\|")
    return ["## In the terms of centralised unlearning", "", *grid, "", legend, ""]


def unfolding(scores: Scores) -> Markup | None:
    """Return the same for the page, folded."""
    found = lines(scores)
    if not found:
        return None
    head = [tag("th", "method", class_="text"), tag("th", "at", class_="text"), "n", *HEADINGS]
    body: list[list[str]] = [
        [
            tag("th", line.label, scope="row", class_="text"),
            tag("td", moment(line.at), class_="text"),
            line.n,
            *line.cells,
        ]
        for line in found
    ]
    summary = tag(
        "summary", "In the terms of centralised unlearning: UA, RA, TA, MIA-efficacy, Average Gap, ToW"
    )
    return tag(
        "details", summary, join(table(head, body, class_="wide"), tag("p", f"{LEGEND}.", class_="note"))
    )


def comparison(every: Sequence[Scores], names: Sequence[Text]) -> Group:
    """Return several runs side by side in these terms, 100 columns wide; of more than one, first the Average Gaps.

    Parameters
    ----------
    names
        What each run is called.
    """
    gaps = Table(title="Average Gap to retraining, ± std; floor: median of other retrainings", **_LAYOUT)
    gaps.add_column("run")
    head, rows = average_gaps(every)
    for heading in head:
        gaps.add_column(heading, justify="right")
    for name, row in zip(names, rows, strict=True):
        gaps.add_row(name, *row)
    shown: list[Table | Text] = [gaps] if len(every) > 1 else []
    for scores, name in zip(every, names, strict=True):
        shown += [*([Text()] if shown else []), _of_one(scores, name)]
    return Group(*shown, Text(f"{LEGEND}.", style="dim italic"))


def _of_one(scores: Scores, name: Text) -> Table:
    table = Table(title=name, title_justify="left", title_style="", **(_LAYOUT | {"padding": 0}))
    headings = [heading for heading in HEADINGS if heading != "recovery"]
    table.add_column("method", max_width=14, overflow="fold")
    table.add_column("n", justify="right")
    for heading in headings:
        table.add_column("time" if heading == "unlearning" else heading, justify="right")
    for line in lines(scores, spreads=False):
        cells = dict(zip(HEADINGS, line.cells, strict=True))
        table.add_row(line.label, line.n, *(cells[heading] for heading in headings))
    return table


def average_gaps(every: Sequence[Scores]) -> tuple[list[str], list[list[str]]]:
    """Return headings and, for each run, the Average Gap of every method and of other retrainings: mean ± std, n."""
    methods = list(dict.fromkeys(label for scores in every for label in scores.methods))
    rows = [[*(_average_gap(scores, method) for method in methods), _floor(scores)] for scores in every]
    return [*methods, "floor"], rows


def _average_gap(scores: Scores, method: str, kind: str = "metrics") -> str:
    at = scores.judged_at(method) if method in scores.methods else None
    if at is None:
        return NOTHING
    stat = scores.stat(method, at, kind, average_gap.name)
    counted = f" (n {stat.n})" if stat.n else ""
    return spread(number(stat.mean, 2), number(stat.std, 2)) + counted


def _floor(scores: Scores) -> str:
    return _average_gap(scores, scores.methods[0], "floor") if scores.methods else NOTHING
