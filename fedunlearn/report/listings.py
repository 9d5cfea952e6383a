"""The page's tables: scorecard, requests, costs, settings."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedunlearn.evaluation.declaration import Declaration
from fedunlearn.html.markup import Markup, join, null, table, tag
from fedunlearn.plurals import counted
from fedunlearn.report import centralised
from fedunlearn.report.run_files import RunFiles
from fedunlearn.report.scores import Scores
from fedunlearn.report.sections import section
from fedunlearn.report.tables import recovery_cell
from fedunlearn.report.words import (
    MARKS,
    NAMED,
    clients,
    forgotten,
    magnitude,
    measured,
    metric_help,
    moment,
    number,
    spread,
)

ARROWS = {"retrain": "→ retrain", "higher": "↑", "lower": "↓"}
"""Which values of a metric are better."""
MOST_ROWS = 400
"""So many rows of a table are on the page: a run that forgets a thousand clients in turn has ten thousand."""


def text(*content: str | None, name: str = "td", **attributes: str | int | None) -> Markup:
    """Return a cell aligned left."""
    return tag(name, *content, class_="text", **attributes)


def scorecard(run: RunFiles) -> Markup:
    """Return the aggregates in the main measures, then in every measure, then every single row."""
    scores = run.scores
    present = scores.metrics()
    main = [metric.name for metric in scores.shown("page") if metric.name in present]
    words = (
        "Means over seeds and requests, the same ones for all methods at each moment (n, 1/2: one of two). Under "
        "each value: |gap| to retraining ± standard deviation, and the seed-to-seed floor. ✓ marks a gap within its "
        "floor; ≈ marks one where the original's gap is too, so that it shows nothing. Hover over a cell for its 95 "
        "% bootstrap interval."
    )
    return section(
        "scorecard",
        "Scorecard",
        tag("p", words, class_="lead"),
        _aggregates(scores, main),
        centralised.unfolding(scores),
        tag("details", tag("summary", "Every measure"), _aggregates(scores, present))
        if present != main
        else None,
        tag("details", tag("summary", f"Every row ({len(scores.rows)})"), _rows(run, present)),
    )


def _aggregates(scores: Scores, metrics: Sequence[str]) -> Markup:
    head = [
        text("at", name="th"),
        "n",
        *(_heading(scores.metric(name)) for name in metrics),
        "recovery rounds",
    ]
    body: list[list[str]] = []
    previous = None
    for line in scores.lines():
        label, at = line.label, line.at
        if label != previous:
            body.append([_group(label, len(head))])
            previous = label
        cells = [_aggregate(scores, label, at, name) for name in metrics]
        when = f"when asked, the cases of “{moment(at)}”" if line.again else moment(at)
        body.append([text(when), scores.counted(line), *cells, recovery_cell(scores, label, at)])
    return table(head, body, class_="wide")


def _group(label: str, columns: int) -> Markup:
    """Return the heading of one method's lines."""
    return tag("th", label, colspan=columns, scope="rowgroup", class_="text group")


def _heading(metric: Declaration) -> Markup:
    arrow = tag("small", ARROWS[metric.better]) if metric.description else None
    return tag("th", metric.title, arrow, title=metric_help(metric))


def _aggregate(scores: Scores, label: str, at: str, name: str) -> Markup:
    metric = scores.metric(name)
    value, gap, size, floor = (
        scores.stat(label, at, kind, name) for kind in ("metrics", "gap", "abs_gap", "floor")
    )
    if value.mean is None:
        reasons = [str(row["reason"]) for row in scores.rows_at(label, at) if row.get("reason")]
        return tag("td", null(reasons[0] if reasons else None))
    parts: list[Markup] = []
    if label != "retrain" and size.mean is not None:
        mark = scores.mark(label, at, name)
        words = f"{MARKS[mark]}|gap| " + spread(measured(metric, size.mean), measured(metric, size.std))
        parts.append(tag("small", words, class_="within" if mark == "within" else None))
    if floor.mean is not None and label != "retrain":
        parts.append(tag("small", f"floor {measured(metric, floor.mean)}"))
    interval = f"mean {spread(measured(metric, value.mean), measured(metric, value.std))}, n = {value.n}"
    if gap.mean is not None:
        interval += f"; signed gap {measured(metric, gap.mean, sign=True)}"
    if gap.low is not None and gap.high is not None:
        interval += f" [{measured(metric, gap.low, sign=True)}, {measured(metric, gap.high, sign=True)}]"
    if wide := scores.floor_spread(label, at, name):
        interval += (
            f"; retrainings {measured(metric, wide[0])} to {measured(metric, wide[1])} apart ({wide[2]})"
        )
    return tag("td", measured(metric, value.mean), *parts, title=interval, data_metric=name)


def _rows(run: RunFiles, metrics: Sequence[str]) -> Markup:
    scores = run.scores
    head = [text("method", name="th"), text("at", name="th"), "seed", text("forgets", name="th"), "round"]
    head += [
        *(_heading(scores.metric(name)) for name in metrics),
        "recovery rounds",
        "authors' rule",
        text("scale", name="th"),
    ]
    body: list[list[str]] = []
    for row in scores.rows[:MOST_ROWS]:
        reason = row.get("reason")
        never = row.get("recovered") is False
        body.append(
            [
                text(str(row["label"]), name="th", scope="row"),
                text(moment(str(row.get("at") or ""))),
                number(row.get("seed"), 0),
                text(forgotten(row, run.names(row.get("seed")))),
                number(row.get("round"), 0),
                *(_single(row, scores.metric(name), reason) for name in metrics),
                _whole(row.get("recovery_rounds"), "never recovered" if never else reason, never=never),
                _whole(row.get("recovery_rounds_authors"), reason),
                text(_scale(row.get("scale"))),
            ]
        )
    return join(table(head, body, class_="wide"), _left_out(len(scores.rows), "scorecard.json"))


def _left_out(rows: int, file: str) -> Markup | None:
    """Say how many of a table's rows are not on the page."""
    left = rows - MOST_ROWS
    return tag("p", f"{counted(left, 'more is', 'more are')} in {file}.", class_="note") if left > 0 else None


def _single(row: Mapping[str, Any], metric: Declaration, reason: str | None) -> Markup:
    value, gap, floor = ((row.get(kind) or {}).get(metric.name) for kind in ("metrics", "gap", "floor"))
    if value is None:
        return tag("td", null(reason))
    beside = (
        f"gap {measured(metric, gap, sign=True)}" if gap is not None and row["label"] != "retrain" else None
    )
    title = f"floor {measured(metric, floor)}" if floor is not None else None
    return tag("td", measured(metric, value), tag("small", beside) if beside else None, title=title)


def _whole(value: int | None, reason: str | None, *, never: bool = False) -> str:
    if value is not None:
        return str(value)
    return "never" if never else null(reason)


def _scale(scale: Mapping[str, Any] | None) -> str:
    """Return the raw scale and what it came to on every forgotten client's update."""
    if not scale:
        return ""
    effective = scale.get("effective") or {}
    if len(effective) > NAMED:
        factors = f"{number(min(effective.values()), 3)} to {number(max(effective.values()), 3)}"
        return f"{scale.get('raw')} → {len(effective):,} clients: {factors}"
    each = ", ".join(f"client {client}: {number(value, 2)}" for client, value in effective.items())
    return f"{scale.get('raw')}" + (f" → {each}" if each else "")


def requests(run: RunFiles) -> Markup | None:
    """Return what became of every request in every branch."""
    body: list[list[str]] = []
    for branch in run.branches:
        for request in branch.requests:
            body.append(
                [
                    text(branch.label, name="th", scope="row"),
                    str(branch.seed),
                    text(request.id),
                    text(clients(request.clients, run.names(branch.seed))),
                    *(number(when, 0) if when is not None else null("has not happened")
                      for when in (request.at_round, request.unlearned_round, request.recovered_round)),
                    text(request.state),
                ]
            )  # fmt: skip
    if not body:
        return None
    head = [text("method", name="th"), "seed", text("request", name="th"), text("forgets", name="th"),
            "asked after round", "unlearned in", "recovered in", text("state", name="th")]  # fmt: skip
    words = "A request arrives once its round is complete and is answered in the next."
    listing = join(table(head, body[:MOST_ROWS], class_="wide"), _left_out(len(body), "requests.sqlite"))
    if len(body) > 12:
        listing = tag("details", tag("summary", f"{len(body)} requests"), listing)
    return section("requests", "Requests", tag("p", words, class_="lead"), listing)


def costs(run: RunFiles) -> Markup | None:
    """Return what each label spent up to each moment, as a share of retraining."""
    scores = run.scores
    names = (("client_epochs", "client-epochs", ""), ("bytes_up", "up", "B"), ("bytes_down", "down", "B"),
             ("seconds", "time", "s"))  # fmt: skip
    head = [text("up to", name="th"), *(title for _, title, _ in names), "of retraining when asked"]
    body: list[list[str]] = []
    cached, previous = False, None
    for label, at in scores.groups():
        spent = [scores.cost(label, at, name) for name, _, _ in names]
        if not any(value is not None for value in spent):
            continue
        if label != previous:
            body.append([_group(label, len(head))])
            previous = label
        reused = any((row.get("cost") or {}).get("cached") for row in scores.rows_at(label, at))
        cached |= reused
        cells: list[str] = [
            magnitude(value, unit) + ("†" if unit == "s" and reused else "")
            if value is not None
            else null(None)
            for value, (_, _, unit) in zip(spent, names, strict=True)
        ]
        retraining = scores.cost_beside(label, at, "retrain", "request", "client_epochs")
        share = (
            f"{number(100 * spent[0] / retraining, 0)} %"
            if spent[0] is not None and retraining
            else null(None)
        )
        body.append([text(moment(at)), *cells, share])
    if not body:
        return None
    words = (
        "Means over seeds and requests; counted from the request on for methods, from the first round for the "
        "others. Last column: client-epochs as a share of what retraining had taken when the request arrived."
    )
    dagger = " † recorded when the branch was first computed; this run took it from the cache."
    return section(
        "costs", "Costs", tag("p", words + dagger * cached, class_="lead"), table(head, body, class_="wide")
    )


def settings(run: RunFiles) -> Markup | None:
    """Return the resolved experiment file."""
    if not run.toml:
        return None
    words = join("Save as a file and run it again with ", tag("code", "fedunlearn run FILE"), ".")
    listing = tag("pre", tag("code", run.toml.strip()))
    return section("settings", "Settings", tag("p", words, class_="lead"), listing)
