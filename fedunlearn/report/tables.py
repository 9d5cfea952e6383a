"""The scorecard as a table: for the terminal (100 columns) and as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from fedunlearn.errors import UserError
from fedunlearn.evaluation.declaration import Declaration
from fedunlearn.evaluation.metrics.attacks import mia_svc
from fedunlearn.report import centralised
from fedunlearn.report.scores import Scores, TableLine
from fedunlearn.report.selection import Case
from fedunlearn.report.stat import Stat
from fedunlearn.report.words import (
    MARKS,
    MOMENTS,
    NOTHING,
    forgotten,
    magnitude,
    measured,
    number,
    spread,
)

_CAPTION = (
    "means over seeds and requests. |gap|: distance to a model retrained without the forgotten data, ± std "
    "(green: within its floor, where the original is not). floor: median |gap| in forget {word} between retrainings. "
    "MIA: MIA-SVC, a membership attack. recovery: rounds until recovered (how many did)"
)
_PARTLY = (
    ". n*: only those cases (a seed and what is forgotten) that all methods have at this moment; for compare: the "
    "original over the same"
)
_APART = ". own: no case has all methods, so they are not comparable"
_SHARE_NONE = ". Some runs of one setting share no case: not comparable"
_DISTANCE = ". forget, retain, test: Dice. HD95: 95 % Hausdorff distance on the forgotten data, mm"
_LEGEND = (
    "{units}; gap: to the model retrained without the forgotten data, in the same round (on pooled data: with as",
    "many epochs as the original); floor: the median of the same between retrainings of different seeds; ± standard",
    "deviation over seeds and requests; ✓: a gap within its floor, where the original's is not; ≈: where it is, too,",
    "so that it shows nothing; n: cases (a seed and what is forgotten) that all methods have at this moment, 1/2 one",
    "of two; recovery: rounds until recovered (how many did).",
)
_LAYOUT: dict[str, Any] = {"box": SIMPLE_HEAD, "padding": (0, 1, 0, 0), "pad_edge": False, "show_edge": False}


def scorecard_table(scorecard: Mapping[str, Any]) -> Table:
    """Return the scorecard's aggregates as a rich table that fits 100 columns."""
    scores = Scores(scorecard)
    quality, forget = scores.quality, scores.quality.of("forget")
    columns = scores.shown("terminal")
    widths = {metric.name: _widths(scores, metric) for metric in columns}
    caption = _CAPTION.format(word=quality.word) + _DISTANCE * ("HD95" in quality.bare)
    counts = [scores.counted(line) for line in scores.lines()]
    caption += _PARTLY * any("/" in count for count in counts) + _APART * any(
        "own" in count for count in counts
    )
    title = "\n".join(filter(None, (scores.experiment, scores.caveat)))
    table = Table(title=title, caption=caption, **_LAYOUT)
    table.add_column("\nmethod, at", min_width=13, max_width=16, overflow="fold")
    for metric in columns:
        if metric.heading in quality.bare:
            table.add_column(f"{metric.heading}\n{metric.unit}", justify="right")
            continue
        fields = _fields(metric.unit, "|gap|", widths[metric.name])
        table.add_column(f"{metric.heading}\n{fields}", overflow="fold")
        if metric.name == forget:
            table.add_column("\nfloor", justify="right")
    table.add_column("\nrecovery", justify="right")
    table.add_column("\nn", justify="right")
    previous = None
    for line in scores.lines():
        label, at = line.label, line.at
        if label != previous:
            if previous is not None:
                table.add_section()
            table.add_row(Text(label, style="bold"))
            previous = label
        cells = [Text(f"  for {at}" if line.again else f"  {at}")]
        for metric in columns:
            if metric.heading in quality.bare:
                cells.append(Text(measured(metric, scores.stat(label, at, "metrics", metric.name).mean)))
                continue
            cells.append(_cell(scores, label, at, metric, widths[metric.name]))
            if metric.name == forget:
                cells.append(Text(number(scores.stat(label, at, "floor", forget).mean), style="dim"))
        counted, _, of = scores.counted(line).partition("/")  # the terminal is narrow
        table.add_row(*cells, recovery_cell(scores, label, at), counted + "*" * bool(of))
    return table


def _cell(scores: Scores, label: str, at: str, metric: Declaration, widths: tuple[int, int]) -> Text:
    value = scores.stat(label, at, "metrics", metric.name).mean
    text = Text(_fields(measured(metric, value), _gap(scores, label, at, metric), widths))
    if scores.mark(label, at, metric.name) == "within":
        text.stylize("green", widths[0] + 1)
    return text


def _gap(scores: Scores, label: str, at: str, metric: Declaration) -> str:
    """Return ``|gap|±std``; nothing for the retrained model, which is the reference."""
    gap = scores.stat(label, at, "abs_gap", metric.name)
    return "" if label == "retrain" or gap.mean is None else compact(gap, metric)


def _widths(scores: Scores, metric: Declaration) -> tuple[int, int]:
    """Return how wide the values and the gaps of one column are."""
    groups = [(line.label, line.at) for line in scores.lines()]
    means = [scores.stat(label, at, "metrics", metric.name).mean for label, at in groups]
    values = [len(measured(metric, mean)) for mean in means]
    return max([1, *values]), max([5, *(len(_gap(scores, label, at, metric)) for label, at in groups)])


def _fields(value: str, gap: str, widths: tuple[int, int]) -> str:
    """Return both in fixed fields, so that the column reads as two."""
    return f"{value:>{widths[0]}} {gap:<{widths[1]}}"


def compact(stat: Stat, metric: Declaration) -> str:
    """Return ``mean±std`` without spaces."""
    return spread(measured(metric, stat.mean), measured(metric, stat.std)).replace(" ", "")


def recovery_cell(scores: Scores, label: str, at: str) -> str:
    """Return ``mean rounds (recovered/awaited)``: what never recovered is counted, not dropped.

    What diverged or failed is: all of it, or how many of how many.
    """
    if not scores.is_method(label):
        return ""
    lost = {"diverged": scores.diverged(label, at), "failed": scores.failed(label, at)}
    if any(lost.values()):
        count = scores.count(label, at)
        return ", ".join(how if n == count else f"{n}/{count} {how}" for how, n in lost.items() if n)
    stat, never = scores.recovery_at(label, at)
    if stat.n + never == 0:
        return NOTHING
    return f"{number(stat.mean) if stat.n else 'never'} ({stat.n}/{stat.n + never})"


def comparison_table(scorecards: Sequence[Mapping[str, Any]]) -> Table:
    """Return several runs side by side: every method at the fairest moment its run offers.

    Runs of another task than classification say under their name what forget and test are measured in; beside them
    classification says so, too.
    """
    every = over_common_cases([Scores(scorecard) for scorecard in scorecards])
    spoken = any(scores.task != centralised.TASK for scores in every)
    caption = (
        "|gap| to retraining ± std at the moment named; floor: median |gap| between retrainings; "
        "MIA: MIA-SVC, a membership attack; recovery: rounds (how many recovered); epochs: client-epochs; "
        "n: cases (a seed and what is forgotten) that all have, 1/2: one of two"
    )
    if spoken:
        caption += (
            ". forget, test: in the measure named under the run"
            + "; points of one measure are not points of another" * (len({s.quality.word for s in every}) > 1)
        )
    caption += _SHARE_NONE * _share_none(every)
    table = Table(title="Runs compared", caption=caption, **_LAYOUT)
    table.add_column("run, method", min_width=16, max_width=28, overflow="fold")
    table.add_column("at", no_wrap=True)
    for heading in ("forget", "floor", "test", "MIA", "recovery", "epochs", "n"):
        table.add_column(heading, justify="right")
    for scores, told_apart in zip(every, _told_apart(every), strict=True):
        forget = scores.quality.of("forget")
        table.add_section()
        table.add_row(_run(scores, spoken, told_apart))
        for line in _compared(scores):
            label, at = line.label, line.at
            gaps = [
                compact(scores.stat(label, at, "abs_gap", name), scores.metric(name))
                for name in (forget, scores.quality.of("test"), mia_svc.name)
            ]
            table.add_row(
                Text(f"  {label}"),
                Text("request" if line.again else at),
                gaps[0],
                number(scores.stat(label, at, "floor", forget).mean),
                *gaps[1:],
                recovery_cell(scores, label, at),
                magnitude(scores.cost(label, at, "client_epochs"), ""),
                scores.counted(line),
            )
    return table


def _compared(scores: Scores) -> list[TableLine]:
    """Return a line for the original and every method, where each is judged; the original over the same cases."""
    methods = [
        TableLine(
            label, scores.judged_at(label) or scores.diverged_at(label) or scores.failed_at(label) or ""
        )
        for label in scores.methods
    ]
    at = scores.judged
    original = TableLine("original", at, again=True) if at and not scores.rows_at("original", at) else None
    original = original or TableLine("original", at or "request")
    return [original] * ("original" in scores.labels) + methods


def over_common_cases(every: Sequence[Scores]) -> list[Scores]:
    """Return runs with the rows that can be compared: of one setting, the cases that all its runs are judged by.

    Runs of other data, or of other clients, have no case in common with them; nor have some of one setting. Those
    stay as they are, each over its own cases.
    """
    found = []
    for scores in every:
        alike = [other for other in every if other.setting == scores.setting]
        cases = [other.judged_cases for other in alike if other.judged_cases]
        common = frozenset.intersection(*cases) if cases else frozenset()
        apart = common and any(own != common for own in cases)
        found.append(scores.within(common) if apart else scores)
    return found


def _share_none(every: Sequence[Scores]) -> bool:
    """Whether some of these runs are of one setting and have no case in common, so that they cannot be compared."""
    by_setting: dict[str, list[frozenset[Case]]] = {}
    for scores in every:
        by_setting.setdefault(scores.setting, []).append(scores.judged_cases)
    return any(all(cases) and not frozenset.intersection(*cases) for cases in by_setting.values())


def centralised_tables(scorecards: Sequence[Mapping[str, Any]]) -> Group:
    """Return several runs side by side in the terms of centralised unlearning; see ``report.centralised``.

    Raises
    ------
    UserError
        If a run's models are judged by something else than accuracy.
    """
    every = over_common_cases([Scores(scorecard) for scorecard in scorecards])
    for scores in every:
        if scores.task != centralised.TASK:
            raise UserError(
                f"{scores.run or scores.experiment}: models are judged by {scores.quality.word}, not accuracy; "
                "leave out --centralised"
            )
    names = [_run(scores, False, told) for scores, told in zip(every, _told_apart(every), strict=True)]
    return centralised.comparison(every, names)


def _told_apart(every: Sequence[Scores]) -> list[str]:
    """Return what tells runs apart: augmentation; of one name the engine, or the folder where that is the same."""
    found = []
    augmented = len({scores.augmentation for scores in every}) > 1
    for scores in every:
        alike = [other for other in every if other.run == scores.run]
        same_engine = [other for other in alike if other.engine == scores.engine]
        words = [f"augmentation: {scores.augmentation or 'unknown'}"] * augmented
        words += [scores.engine] * (len(alike) > 1) + [scores.directory] * (len(same_engine) > 1)
        found.append(", ".join(filter(None, words)))
    return found


def _run(scores: Scores, spoken: bool, told_apart: str) -> Text:
    """Return a run's name, with what must be known of its numbers under it."""
    about = [scores.quality.word] if spoken else []
    about += ["smoke run"] if scores.smoke else []
    about += [f"{scores.origin} data"] if scores.origin else []
    about += [told_apart] if told_apart else []
    name = Text(scores.run or scores.experiment, style="bold")
    return name.append(f"\n{', '.join(about)}", style="not bold dim") if about else name


def markdown(scorecard: Mapping[str, Any]) -> str:
    """Return the scorecard as Markdown: the aggregates, then every row."""
    scores = Scores(scorecard)
    lines = [f"# Scorecard of {_plain(scores.experiment)}", ""]
    if scores.caveat:
        lines += [f"**{_plain(scores.caveat)}**", ""]
    if scores.run:
        lines += [f"Run `{scores.run}`.", ""]
    quality, present = scores.quality, scores.metrics()
    columns = scores.shown("terminal")
    told = columns + [metric for metric in scores.shown("markdown") if metric not in columns]
    metrics = [metric for metric in told if metric.name in present]
    head = ["method", "at", "n"]
    for metric in metrics:
        head += [_plain(metric.title), "\\|gap\\|", "floor"]
    aggregates = []
    for line in scores.lines():
        label, at = line.label, line.at
        cells = [_plain(label), f"for {at}" if line.again else at, scores.counted(line)]
        for metric in metrics:
            value, gap, floor = (
                scores.stat(label, at, kind, metric.name) for kind in ("metrics", "abs_gap", "floor")
            )
            mark = MARKS[scores.mark(label, at, metric.name)]
            cells += [
                spread(measured(metric, value.mean), measured(metric, value.std)),
                mark + spread(measured(metric, gap.mean), measured(metric, gap.std)),
                measured(metric, floor.mean),
            ]
        aggregates.append([*cells, recovery_cell(scores, label, at)])
    lines += [*_grid([*head, "recovery rounds"], aggregates), ""]
    lines += [
        f"`{at}`: {long}."
        for at, (_, long) in MOMENTS.items()
        if any(at == seen for _, seen in scores.groups())
    ]
    legend = [line.format(units=quality.units) for line in _LEGEND]
    lines += ["", *legend, "", *centralised.markdown_section(scores), "## Every row", ""]
    rows = [
        [_plain(str(row["label"])), str(row.get("at") or ""), number(row.get("seed"), 0),
         forgotten(row), number(row.get("round"), 0)]
        + [_valued(row, metric) for metric in metrics]
        + [_plain(str(row.get("reason") or ""))]
        for row in scores.rows
    ]  # fmt: skip
    head = [
        "method",
        "at",
        "seed",
        "forgets",
        "round",
        *(_plain(metric.title) for metric in metrics),
        "note",
    ]
    return "\n".join([*lines, *_grid(head, rows), ""])


def _valued(row: Mapping[str, Any], metric: Declaration) -> str:
    value, gap = ((row.get(kind) or {}).get(metric.name) for kind in ("metrics", "gap"))
    return measured(metric, value) + (
        f" ({measured(metric, gap, sign=True)})" if gap is not None and row["label"] != "retrain" else ""
    )


def _plain(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _grid(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *body]
    return ["| " + " | ".join(cells) + " |" for cells in lines]
