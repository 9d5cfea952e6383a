"""The gaps to retrain as dots: one per forgotten set and seed, beside their mean and the floor.

Means and floor of a moment are over the cases that all methods have there; dots of other cases are hollow.
"""

from collections.abc import Mapping, Sequence

from matplotlib.ticker import MaxNLocator

from fedunlearn.evaluation.declaration import Declaration
from fedunlearn.html.markup import Markup
from fedunlearn.html.palette import STAND_INS, Look
from fedunlearn.html.svg import Drawing, drawing, inline
from fedunlearn.report.scores import Scores, TableLine
from fedunlearn.report.selection import case_of, value_of
from fedunlearn.report.words import forgotten, moment, number

SHOWN = ("request", "compare", "cap", "final", "recovered")
"""The moments a dot plot may show; ``recovered`` only where there is no common round to compare at."""
MOST_DOTS = 100
"""So many dots are on one line; of more, so many at even ranks, smallest and largest among them."""


def gap_plot(scores: Scores, metric: Declaration, looks: Mapping[str, Look], *, name: str) -> Markup | None:
    """Return the signed gaps to retrain in one metric, a dot per (seed, request); None when nothing has one.

    The bar is the 95 % bootstrap interval of the mean, the band around zero the seed-to-seed floor of the moment.
    """
    groups = _groups(scores, metric)
    if not groups:
        return None
    lines, unit = sum(len(labels) + 1 for _, labels in groups), metric.gap_unit
    title = f"Gap to retrain in {metric.title}, a dot per forgotten set and seed"
    with drawing(name, title, width=3.7, height=0.66 + 0.225 * lines) as drawn:
        axes = drawn.axes
        axes.set_title(metric.title[0].upper() + metric.title[1:])
        axes.axvline(0, color=STAND_INS["retrain"], linewidth=1.5, linestyle=(0, (4, 2.2)), zorder=2)
        ticks: list[float] = []
        names: list[str] = []
        inks: list[str] = []
        height = 0.0
        for at, labels in groups:
            _floor_band(drawn, scores, metric, at, labels, height)
            for label in (None, *labels):  # a heading, then its lines
                height -= 1
                ticks.append(height)
                inks.append(looks[label].ink if label else STAND_INS["muted"])
                if label is None:
                    names.append(moment(at))
                else:
                    names.append(label if len(label) <= 18 else f"{label[:17]}…")
                    _dots(drawn, scores, label, at, metric, height, looks[label])
        axes.set_yticks(ticks, names)
        for text, ink in zip(axes.get_yticklabels(), inks, strict=True):
            text.set(color=ink, fontstyle="italic" if ink == STAND_INS["muted"] else "normal")
        axes.set_ylim(height - 0.6, -0.5)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel(", ".join(filter(None, ("gap to retraining", unit))))
        return inline(drawn)


def _groups(scores: Scores, metric: Declaration) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for at in SHOWN:
        present = [label for label in scores.labels if label != "retrain" and scores.rows_at(label, at)]
        labels = [label for label in present if _gaps(scores, label, at, metric)]
        if labels and TableLine("original", at, again=True) in scores.lines():
            labels = ["original", *labels]
        if labels and not (at == "recovered" and any(other != "request" for other, _ in found)):
            found.append((at, labels))
    return found


def _gaps(scores: Scores, label: str, at: str, metric: Declaration) -> list[tuple[float, bool, str]]:
    """Return (gap, whether its case is one that all methods have, words) of every row that has one."""
    gaps = []
    compared = scores.selected(label, at, metric.name)
    cases = frozenset(map(case_of, compared))
    for row in scores.rows_at(label, at) or compared:
        gap = value_of(row, "gap", metric.name)
        if gap is not None:
            words = f"{label}, {forgotten(row)}, seed {row.get('seed')}: {number(gap, sign=True)} {metric.gap_unit}"
            gaps.append((gap, case_of(row) in cases, words))
    return gaps


def _dots(
    drawn: Drawing, scores: Scores, label: str, at: str, metric: Declaration, height: float, look: Look
) -> None:
    gaps = _gaps(scores, label, at, metric)
    if len(gaps) > MOST_DOTS:
        ranked = sorted(gaps)
        gaps = [ranked[place * (len(ranked) - 1) // (MOST_DOTS - 1)] for place in range(MOST_DOTS)]
    for gap, compared, words in gaps:
        (dot,) = drawn.axes.plot(
            gap,
            height,
            marker="o",
            markersize=6,
            color=look.ink,
            alpha=0.45,
            markerfacecolor=look.ink if compared else "none",
            markeredgewidth=0 if compared else 1,
            zorder=3,
        )
        drawn.note(dot, f"gap {label} {at}", words)
    stat = scores.stat(label, at, "gap", metric.name)
    if stat.low is not None and stat.high is not None:
        drawn.axes.plot([stat.low, stat.high], [height, height], color=look.ink, linewidth=1.3, zorder=4)
    if stat.mean is not None:
        (mean,) = drawn.axes.plot(
            stat.mean, height, marker="|", markersize=13, markeredgewidth=2.6, color=look.ink, zorder=5
        )
        words = f"{label}, mean of {stat.n}: {number(stat.mean, sign=True)} {metric.gap_unit}"
        drawn.note(mean, f"mean {label} {at}", words)


def _floor_band(
    drawn: Drawing, scores: Scores, metric: Declaration, at: str, labels: Sequence[str], height: float
) -> None:
    """Draw the floor of one moment behind its lines, which begin below ``height``."""
    floors = [scores.stat(label, at, "floor", metric.name).mean for label in labels]
    known = [floor for floor in floors if floor is not None]
    if known:
        floor = sum(known) / len(known)  # the same for all of them, but for recovery at their own rounds
        band = drawn.axes.fill_betweenx(
            [height - 1.5, height - len(labels) - 1.5],
            -floor,
            floor,
            color=STAND_INS["retrain"],
            alpha=0.13,
            linewidth=0,
            zorder=1,
        )
        drawn.note(band, f"floor {at}", f"seed-to-seed floor: ± {number(floor)} {metric.gap_unit}")
