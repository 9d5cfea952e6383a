"""A sweep to look at: every trial as a dot, and what was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedunlearn import __version__
from fedunlearn.config.toml_text import inline as toml
from fedunlearn.durable import write_durably
from fedunlearn.evaluation.metric import Metric
from fedunlearn.html.markup import Markup, join, tag
from fedunlearn.html.markup import table as html_table
from fedunlearn.html.palette import STAND_INS
from fedunlearn.html.style import stylesheet
from fedunlearn.html.svg import drawing, inline
from fedunlearn.report.words import NOTHING, SMOKE, number
from fedunlearn.sweep.file import Sweep
from fedunlearn.sweep.outcome import References, Tried

LEAST = 0.01
"""In points: smaller gaps are drawn here, as the axis is logarithmic. Of other units the smallest score is."""
LISTED = 8
"""So many trials of a method are listed, the best ones."""


def settings_words(settings: Mapping[str, object]) -> str:
    """Return settings as a line of TOML each has: ``lr = 0.01, epochs = 5``."""
    pairs = (f"{key.removeprefix('settings.')} = {toml(value)}" for key, value in settings.items())
    return ", ".join(pairs) or "as in the experiment"


def unit_of(by: Metric) -> str:
    """Return what the axis of a metric counts, and which value a retrained model has where that is not 0."""
    return f"{by.retrained_value:g} is retraining" if by.retrained_value else by.gap_unit or by.unit


def score_words(by: Metric, value: float | None) -> str:
    """Return a score: of points and shares two decimals, of other units three significant figures."""
    if value is None or by.unit in ("%", "0 to 1"):
        return number(value, 2)
    return f"{value:.3g}"


def write_page(
    sweep: Sweep,
    found: Mapping[str, Sequence[Tried]],
    chosen: Mapping[str, Tried],
    references: References,
    path: Path,
) -> None:
    """Write the page of what was found so far, one file without anything beside it."""
    by = sweep.goal
    better = "smaller" if by.better == "lower" else "larger"
    seeds = ", ".join(map(str, sweep.settings.seeds))
    lead = (
        f"{by.title} ({unit_of(by)}, {better} is better) against a model retrained without the forgotten data, on "
        f"the validation split of seeds {seeds}; the test split was not read, and {sweep.experiment.name} has other "
        "seeds. Every dot is a trial, the diamond the experiment's own settings, the ring what was chosen."
    )
    body = tag(
        "body",
        tag(
            "header",
            tag("h1", tag("b", sweep.settings.name), " · sweep"),
            tag("p", SMOKE, class_="caveat") if sweep.settings.smoke_run else None,
        ),
        tag(
            "main",
            tag(
                "section", tag("p", lead, class_="lead"), tag("figure", strips(by, found, chosen, references))
            ),
            tag("section", tag("h2", "Chosen"), _chosen_table(by, found, chosen), id="chosen"),
            tag(
                "section", tag("h2", "Trials"), *(_trials(label, tried, by) for label, tried in found.items())
            ),
        ),
        tag("footer", f"Written by fedunlearn {__version__}."),
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{sweep.settings.name} · sweep"),
        tag("style", Markup(stylesheet(caveat=sweep.settings.smoke_run))),
    )
    write_durably(path, f"<!doctype html>\n{tag('html', head, body, lang='en')}\n".encode())


def strips(
    by: Metric, found: Mapping[str, Sequence[Tried]], chosen: Mapping[str, Tried], references: References
) -> Markup:
    """Return a line per method with its trials on it."""
    logarithmic = by.better == "lower" and by.retrained_value == 0
    scores = (each.score for tried in found.values() for each in tried)
    known = [score for score in scores if score is not None and score > 0]
    least = LEAST if by.unit == "%" else min(known, default=LEAST)
    with drawing("trials", f"{by.title} of every trial", width=7.6, height=0.9 + 0.28 * len(found)) as drawn:
        axes = drawn.axes
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("")
        for word, value in (("floor", references.floor), ("original", references.original)):
            if value is not None:
                colour = STAND_INS["retrain" if word == "floor" else "original"]
                line = axes.axvline(
                    max(value, least) if logarithmic else value, color=colour, linestyle="--", zorder=1
                )
                drawn.note(line, word, f"{word}: {score_words(by, value)}")
        for height, (label, tried) in enumerate(found.items()):
            for each in tried:
                if each.score is None:
                    continue
                x = max(each.score, least) if logarithmic else each.score
                own = each.trial.number == 0
                (dot,) = axes.plot(
                    x,
                    -height,
                    marker="D" if own else "o",
                    markersize=6,
                    color=STAND_INS["natural" if own else "method0"],
                    alpha=0.95 if own else 0.5,
                    markeredgewidth=0,
                    zorder=4 if own else 3,
                )
                score, settings = score_words(by, each.score), settings_words(each.trial.settings)
                words = f"{label} {each.trial.number}: {score}; {settings}"
                drawn.note(dot, f"trial {label} {each.trial.number}", words)
                if each is chosen[label]:
                    axes.plot(
                        x, -height, marker="o", markersize=12, markerfacecolor="none",
                        markeredgecolor=STAND_INS["good"], markeredgewidth=2, zorder=5,
                    )  # fmt: skip
        axes.set_yticks([-height for height in range(len(found))], list(found))
        axes.set_ylim(-len(found) + 0.4, 0.6)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{by.title}, {unit_of(by)} (dashed: floor between two retrainings, and original)")
        return inline(drawn)


def _chosen_table(by: Metric, found: Mapping[str, Sequence[Tried]], chosen: Mapping[str, Tried]) -> Markup:
    rows = []
    for label, tried in found.items():
        best, failed = chosen[label], sum(each.score is None for each in tried)
        numbers = [
            score_words(by, tried[0].score),
            score_words(by, best.score),
            f"{best.seconds:.1f}",
            str(failed),
        ]
        rows.append([_text(label), *numbers, _text(settings_words(best.trial.settings))])
    head = [
        _text("method", "th"),
        "own settings",
        "chosen",
        "seconds",
        "without a score",
        _text("settings", "th"),
    ]
    return html_table(head, rows)


def _trials(label: str, tried: Sequence[Tried], by: Metric) -> Markup:
    sign = 1 if by.better == "lower" else -1
    ranked = sorted(tried, key=lambda each: (each.score is None, sign * (each.score or 0.0)))
    rows = []
    for each in ranked[:LISTED]:
        score = score_words(by, each.score) if each.score is not None else each.reason or NOTHING
        row = [str(each.trial.number), score, f"{each.seconds:.1f}"]
        rows.append([*row, _text(settings_words(each.trial.settings))])
    left_out = len(tried) - len(rows)
    words = f"{left_out} more in trials.json" if left_out else None
    head = ["trial", "score", "seconds", _text("settings", "th")]
    return join(tag("h3", label), html_table(head, rows, caption=words))


def _text(words: str, name: str = "td") -> Markup:
    return tag(name, words, class_="text")
