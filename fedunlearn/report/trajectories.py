"""The quality of models over rounds: the original, the fork of every method, and the retrained model beside them."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fedunlearn.html.markup import Markup
from fedunlearn.html.palette import STAND_INS, Look
from fedunlearn.html.svg import Drawing, drawing, inline
from fedunlearn.report.panels import Panel, method_series, original_series, reference_series
from fedunlearn.report.run_files import RunFiles
from fedunlearn.report.series import Series
from fedunlearn.report.words import clients, few, number

SPLITS = {
    "forget": "the forgotten data",
    "test": "test data",
    "retain": "the retained data",
    "validation": "validation data",
}


def trajectory(
    run: RunFiles, panel: Panel, split: str, looks: Mapping[str, Look], *, name: str, start: int | None = None
) -> Markup | None:
    """Return the chart of one panel and split as SVG, None where no method was measured on this split.

    Drawn: the original up to the request (grey), each method from its fork on, retraining (dashed) with the
    seed-to-seed floor as a band around it, a vertical line per request and a ring where a method recovered.
    """
    first = panel.start if start is None else start
    curves = {branch: method_series(run, panel, branch, split) for branch in panel.methods}
    if not any(len(curve) for curve in curves.values()):
        return None
    quality = run.scores.quality
    heading = f"{quality.title} on {SPLITS[split]}" if split in SPLITS else split
    forgets = panel.title[0].lower() + panel.title[1:]
    title = f"{heading} over rounds; {forgets}, seed {panel.seed}"
    with drawing(name, title) as drawn:
        axes = drawn.axes
        axes.set_title(heading, pad=19 + 11 * (len(panel.requests) > 1))
        _retrained(drawn, run, panel, split, first)
        original = original_series(run, panel, split).between(first, panel.fork)
        if len(original):
            _curve(drawn, original, looks["original"], "original", marker_every=len(original))
        for branch, curve in curves.items():
            look = looks[branch.label]
            shown = curve.between(first, panel.last)
            _curve(drawn, shown, look, branch.label)
            for request in branch.requests:
                if request.recovered_round is not None:
                    _recovery(drawn, shown, look, branch.label, request.recovered_round)
        axes.set_xlim(first - 0.4, panel.last + 0.4)
        _pad(axes)
        _requests(drawn, panel)
        axes.set_xlabel("round")
        axes.set_ylabel(f"{quality.word}, %")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=2))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="x", visible=False)
        return inline(drawn)


def _curve(drawn: Drawing, curve: Series, look: Look, label: str, *, marker_every: int | None = None) -> None:
    (line,) = drawn.axes.plot(
        curve.rounds,
        curve.values,
        color=look.ink,
        linestyle=look.dashes,
        marker=look.marker,
        markevery=marker_every or max(1, len(curve) // 15),
        markersize=4,
        solid_capstyle="round",
        zorder=3,
    )
    last = f"{number(float(curve.values[-1]))} % in round {curve.rounds[-1]}" if len(curve) else ""
    drawn.note(line, f"curve {label}", f"{label}: {last}")


def _retrained(drawn: Drawing, run: RunFiles, panel: Panel, split: str, first: int) -> None:
    for reference in panel.references:
        oracle, distance = reference_series(run, panel, reference, split)
        shown = oracle.between(first, panel.last)
        if not len(shown):
            continue
        near = distance.between(first, panel.last)
        if len(near):
            centre = np.array([oracle.at(int(round)) for round in near.rounds], np.float64)
            band = drawn.axes.fill_between(
                near.rounds,
                centre - near.values,
                np.minimum(centre + near.values, 100.0),
                color=STAND_INS["retrain"],
                alpha=0.13,
                linewidth=0,
                zorder=1,
            )
            drawn.note(
                band, "floor", "seed-to-seed floor: retraining ± its median distance to further retrainings"
            )
        (line,) = drawn.axes.plot(
            shown.rounds,
            shown.values,
            color=STAND_INS["retrain"],
            linestyle=(0, (4, 2.2)),
            linewidth=1.5,
            zorder=2,
        )
        words = f"retrained without {clients(sorted(reference.retrain.forget), panel.names)}: "
        drawn.note(line, "retrain", f"{words}{number(float(shown.values[-1]))} % in round {shown.rounds[-1]}")


def _recovery(drawn: Drawing, curve: Series, look: Look, label: str, round: int) -> None:
    height = curve.at(round)
    mark = drawn.axes.axvline(round, color=look.ink, linewidth=1, linestyle=(0, (1, 2)), zorder=1.5)
    drawn.note(mark, f"recovery {label}", f"{label} has recovered in round {round}")
    if height is not None:
        drawn.axes.plot(
            [round],
            [height],
            marker="o",
            markersize=10,
            markerfacecolor="none",
            markeredgecolor=look.ink,
            markeredgewidth=1.6,
            zorder=4,
        )


def _requests(drawn: Drawing, panel: Panel) -> None:
    """Draw a line where each request arrives: after its round is complete, hence half a round later."""
    previous, raised = float("-inf"), False
    for request in panel.requests:
        near = request.at_round - previous < 0.12 * (panel.last - panel.start)
        previous, raised = request.at_round, near and not raised  # so that two labels do not overlap
        place = request.at_round + 0.5
        line = drawn.axes.axvline(place, color=STAND_INS["ink"], linewidth=1.1, zorder=1.6)
        words = f"forget {clients(request.clients)}"
        drawn.note(
            line, f"request {request.id}", f"request {request.id} after round {request.at_round}: {words}"
        )
        drawn.axes.annotate(
            "request" if len(panel.requests) == 1 else f"−{few(request.clients, 6).replace(' ', '')}",
            (place, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 14 if raised else 3),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            color=STAND_INS["ink"],
        )


def _pad(axes: Axes) -> None:
    """Leave air around the curves, at least four points of range, and nothing beyond 0 … 100 %."""
    low, high = axes.get_ylim()
    missing = max(0.0, 4.0 - (high - low)) / 2
    axes.set_ylim(max(-1.5, low - missing - 0.5), min(101.5, high + missing + 0.5))
