"""Every centralised method on 5 000 digits, with the papers' settings and tuned ones, and hosted by clients.

::

    python -m benchmarks.centralised                  # searches, runs, and prints the tables: more than an hour
    python -m benchmarks.centralised --write-docs     # and puts them and a picture into docs/unlearning-mnist5k.md

It does what ``fedunlearn sweep sweeps/mnist5k-random.toml`` and ``fedunlearn run`` on its tuned.toml do, the same
for a class, and ``fedunlearn run experiments/centralised/hosted-mnist5k.toml``; what has been run is not run again.
Settings are searched on other seeds, other things to forget and the validation split; the tables have the
experiments' own seeds and the test split, on which nothing was chosen.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import docs
from benchmarks.machine import in_words, machine
from benchmarks.tables import markdown
from fedunlearn import config
from fedunlearn.errors import UserError
from fedunlearn.html.markup import Markup
from fedunlearn.html.palette import STAND_INS
from fedunlearn.html.svg import drawing, inline
from fedunlearn.report import centralised
from fedunlearn.report.figure import MARGIN, side_by_side, standalone
from fedunlearn.report.run_files import with_setting
from fedunlearn.report.scores import Scores, Stat
from fedunlearn.report.words import NOTHING, magnitude, number
from fedunlearn.simulation.progress import Progress
from fedunlearn.simulation.runner import read_scorecard, simulate
from fedunlearn.sweep import file as sweeps
from fedunlearn.sweep.page import LEAST, settings_words
from fedunlearn.sweep.search import TUNED, chosen, run_sweep

ROOT = Path(__file__).resolve().parents[1]
SWEEPS = {
    "random": ("A random tenth", ROOT / "sweeps" / "mnist5k-random.toml"),
    "class": ("A class", ROOT / "sweeps" / "mnist5k-class.toml"),
}
HOSTED = ROOT / "experiments" / "centralised" / "hosted-mnist5k.toml"
PAGE = docs.PAGE.with_name("unlearning-mnist5k.md")
PICTURE = PAGE.with_suffix(".svg")
BEGIN = "<!-- figures: begin (written by benchmarks/centralised.py) -->"
PACKAGES = ("torch", "scikit-learn")
SUFFIX = "-tuned"
GAP = "average_gap"
LEGEND = 32.0
WORDS = (
    '<tspan fill="var(--natural)">◆ papers’ settings</tspan>  <tspan fill="var(--method0)">● tuned</tspan>  '
    "with 95 % intervals; dashed: between two retrainings, and the original"
)


@dataclass(frozen=True)
class Tuned:
    """A run with every method twice, and what the search before it chose.

    Attributes
    ----------
    scores : Scores
        With a label for each method, and another with ``-tuned``.
    settings : mapping
        Label → the settings that were chosen, in words.
    """

    scores: Scores
    settings: Mapping[str, str]

    @property
    def ranked(self) -> list[str]:
        """The methods by the gap that they reach with tuned settings; last those without a number."""

        def gap(label: str) -> tuple[bool, float]:
            mean = average_gap(self.scores, label + SUFFIX).mean
            return mean is None, mean or 0.0

        return sorted(self.settings, key=gap)


def run(experiment: config.Experiment, out: Path) -> Scores:
    """Run an experiment, or go on with it, and return its scores."""
    folder = simulate(experiment, out=out, resume=True, progress=Progress())
    return Scores(with_setting(read_scorecard(folder), folder))


def tuned(file: Path, overrides: Sequence[str], out: Path, *, smoke: bool) -> Tuned:
    """Search settings as a sweep's file says, or go on with it, and run the experiment with what was chosen."""
    sweep = sweeps.load(file, overrides=tuple(overrides), smoke=smoke)
    folder, found = run_sweep(sweep, out=out, begins=lambda place, label, n: print(f"{label}: {n} settings"))
    words = {label: settings_words(best.trial.settings) for label, best in chosen(sweep, found).items()}
    return Tuned(run(config.load(folder / TUNED), out), words)


def average_gap(scores: Scores, label: str, at: str | None = None) -> Stat:
    """Return the Average Gap of a label at a moment, or where it is judged."""
    return scores.stat(label, at or scores.judged_at(label) or "", "metrics", GAP)


def floor(scores: Scores) -> Stat:
    """Return the Average Gap between two retrainings, beside the first method that has a number."""
    found = (scores.stat(label, scores.judged_at(label) or "", "floor", GAP) for label in scores.methods)
    return next((stat for stat in found if stat.mean is not None), Stat())


def interval(stat: Stat) -> str:
    """Return the mean and, of more than one, its 95 % bootstrap interval."""
    if stat.mean is None or stat.low is None:
        return number(stat.mean, 2)
    return f"{number(stat.mean, 2)} [{number(stat.low, 2)}, {number(stat.high, 2)}]"


def gaps(found: Tuned) -> str:
    """Return the Average Gap of every method with its own settings and with tuned ones, as Markdown."""
    scores = found.scores
    head = ["method", "Average Gap", "seconds", "tuned: Average Gap", "tuned: seconds", "tuned settings", "n"]
    rows = []
    for label in found.ranked:
        cells = []
        for each in (label, label + SUFFIX):
            gone = scores.diverged_at(each)
            lost = f", {scores.diverged(each, gone)} diverged" if gone else ""
            seconds = scores.cost(each, "unlearned", "seconds")
            cells += [interval(average_gap(scores, each)) + lost, number(seconds, 2)]
        n = scores.count(label, "unlearned")
        rows.append([label, *cells, f"`{found.settings[label]}`", str(n)])
    rows.append(["*a second retraining (floor)*", interval(floor(scores)), *[""] * 4, str(floor(scores).n)])
    at = next((at for at in ("cap", "unlearned", "request") if average_gap(scores, "original", at).mean), "")
    original = average_gap(scores, "original", at)
    rows.append(["*the original*", interval(original), *[""] * 4, str(original.n)])
    retraining = scores.cost("retrain", "request", "seconds")
    note = f"One retraining takes {magnitude(retraining, 's')}."
    return f"{markdown(head, rows)}\n\n{note}"


def terms(scores: Scores) -> str:
    """Return everything in the terms of centralised unlearning, folded."""
    rows = [[line.label, *line.cells, str(line.n)] for line in centralised.lines(scores)]
    grid = markdown(["method", *centralised.HEADINGS, "n"], rows)
    return f"<details><summary>UA, RA, TA, MIA-efficacy, ToW, time</summary>\n\n{grid}\n\n</details>"


def hosted(scores: Scores) -> str:
    """Return what forgetting at the clients comes to: right after it and after recovery."""
    head = ["method", "unlearned: Average Gap", "recovered or at the cap: Average Gap", "rounds to recover"]
    head += ["not recovered", "unlearning, s", "with recovery, share of retraining", "n"]
    rows = []
    for label in scores.methods:
        at = scores.judged_at(label) or ""
        rounds, never, of = scores.recovery(label)
        seconds = scores.cost(label, "unlearned", "seconds")
        spent = scores.cost(label, at, "seconds")
        whole = scores.cost_beside(label, at, "retrain", at, "seconds")
        share = f"{number(100 * spent / whole)} %" if spent is not None and whole else NOTHING
        rows.append(
            [
                label,
                interval(average_gap(scores, label, "unlearned")),
                interval(average_gap(scores, label, at)),
                number(rounds.mean),
                f"{never} of {of}",
                number(seconds, 2),
                share,
                str(scores.count(label, "unlearned")),
            ]
        )
    rows.append(
        ["*a second retraining (floor)*", "", interval(floor(scores)), *[""] * 4, str(floor(scores).n)]
    )
    return markdown(head, rows)


def picture(found: Mapping[str, Tuned]) -> str:
    """Return the gaps of both settings, a line for each method, as an SVG file."""
    panels = [_panel(name, SWEEPS[name][0], each) for name, each in found.items()]
    body, right, bottom = side_by_side(panels, top=LEGEND)
    body = (
        f'<text x="{2 * MARGIN:g}" y="{LEGEND - 8:g}" font-size="12" fill="var(--ink)">{WORDS}</text>\n{body}'
    )
    title = "Average Gap of every method with the papers' settings and with tuned ones"
    return standalone(body, right + MARGIN, bottom + MARGIN, title=title)


def _panel(name: str, title: str, found: Tuned) -> Markup:
    labels, scores = found.ranked, found.scores
    with drawing(name, title, width=5.4, height=1.1 + 0.26 * len(labels)) as drawn:
        axes = drawn.axes
        axes.set_title(title)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        original = average_gap(scores, "original", "request")
        for word, stat in (("retrain", floor(scores)), ("original", original)):
            if stat.mean is not None:
                line = axes.axvline(max(stat.mean, LEAST), color=STAND_INS[word], linestyle="--", zorder=1)
                drawn.note(line, word, f"{'floor' if word == 'retrain' else word}: {interval(stat)}")
        for place, label in enumerate(labels):
            for each, colour, marker, y in (
                (label, "natural", "D", -place + 0.14),
                (label + SUFFIX, "method0", "o", -place - 0.14),
            ):
                stat = average_gap(scores, each)
                if stat.mean is None:
                    continue
                if stat.low is not None and stat.high is not None:
                    ends = [max(stat.low, LEAST), max(stat.high, LEAST)]
                    axes.plot(ends, [y, y], color=STAND_INS[colour], linewidth=1.4, zorder=2)
                (dot,) = axes.plot(
                    max(stat.mean, LEAST), y, marker=marker, color=STAND_INS[colour], markersize=5.5, zorder=3
                )
                drawn.note(dot, each, f"{each}: {interval(stat)}")
        axes.set_yticks([-place for place in range(len(labels))], labels)
        axes.set_ylim(-len(labels) + 0.4, 0.6)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("Average Gap, points")
        return inline(drawn)


def tables(found: Mapping[str, Tuned], of_hosts: Scores) -> str:
    """Return the page's figures as Markdown."""
    parts = []
    for name, each in found.items():
        parts += [f"### {SWEEPS[name][0]}", gaps(each), terms(each.scores)]
    return "\n\n".join([*parts, "### Hosted by clients", hosted(of_hosts), terms(of_hosts)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    headline = str(__doc__).partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.centralised", description=headline)
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of runs")
    parser.add_argument("--smoke", action="store_true", help="a scaled-down version")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="of the sweeps' files")  # fmt: skip
    parser.add_argument("--write-docs", action="store_true", help=f"put the tables into docs/{PAGE.name}")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        found = {
            name: tuned(file, asked.overrides, asked.out, smoke=asked.smoke)
            for name, (_, file) in SWEEPS.items()
        }
        of_hosts = run(config.load(HOSTED, smoke=asked.smoke), asked.out)
    except UserError as error:
        parser.exit(2, f"{error}\n")
    where = f"{in_words(machine(PACKAGES), PACKAGES)}; one thread. By `python -m benchmarks.centralised`."
    text = f"{tables(found, of_hosts)}\n\n{where}"
    print(text)
    if asked.write_docs:
        PAGE.write_text(
            docs.with_figures(
                PAGE.read_text(encoding="utf-8"), text, begin=BEGIN, page_name=f"docs/{PAGE.name}"
            ),
            encoding="utf-8",
        )
        PICTURE.write_text(picture(found), encoding="utf-8")


if __name__ == "__main__":
    main()
