"""A cost beside a gap is that of the same moment: in every card and table that shows both, on every kind of run."""

import io
import re

import pytest
from rich.console import Console

from fedunlearn.report import centralised
from fedunlearn.report.page import render
from fedunlearn.report.run_files import RunFiles, read_run
from fedunlearn.report.tables import comparison_table
from fedunlearn.report.words import MOMENTS, magnitude
from tests.report.example_run import ExampleRun
from tests.report.parsed_page import parse

SHORT = {short: at for at, (short, _) in MOMENTS.items()}
LEFT_OUT = {
    "compare": set(),
    "cap": {"compare"},
    "recovered": {"compare", "cap"},
    "unlearned": {"compare", "cap", "recovered"},
}
"""Where methods are judged → the moments that the run has not."""


@pytest.fixture(params=[*LEFT_OUT, "final"])
def run(request, tmp_path) -> RunFiles:
    """Return a run judged at this moment, in which natural forgetting recovers long before compare and cap."""
    timeline = request.param == "final"
    known = {"targets": ((0,), (2, 3)), "timeline": (20, 22)} if timeline else {"targets": ((0,), (2,), (7,))}
    example = ExampleRun(**known)
    absent = LEFT_OUT.get(request.param, set())
    example.rows = [row for row in example.rows if row.at not in absent]
    found = read_run(example.write(tmp_path / "run"))
    assert found.scores.judged == request.param
    return found


def listed(page) -> dict[tuple[str, str], list[str]]:
    """Return the page's table of costs: (label, moment) → client-epochs, up, down, time, share."""
    found, label = {}, ""
    for line in page.all("section", id="costs")[0].all("tr")[1:]:
        cells = [cell.text for cell in line.all("td")]
        if not cells:
            label = line.all("th")[0].text
        else:
            found[label, SHORT[cells[0]]] = cells[1:]
    return found


@pytest.mark.quick(run=2)
def test_every_card_has_the_costs_of_its_moment(run):
    page = parse(render(run))
    costs = listed(page)
    for card in page.all("article"):
        label = card.attributes["data-label"]
        at = SHORT[card.all("p", class_="big")[0].text.partition("forgotten data, ")[2]]
        facts = dict(
            zip((term.text for term in card.all("dt")), (fact.text for fact in card.all("dd")), strict=True)
        )
        retraining = costs.get(("retrain", at))
        beside = f", retraining {retraining[0]}" if retraining else ""
        assert facts["client-epochs until then"] == costs[label, at][0] + beside


def test_every_line_of_the_centralised_terms_has_the_times_of_its_moment(run):
    for line in centralised.lines(run.scores):
        unlearning, recovery, share = line.cells[6:]
        if line.label == "original":
            assert (unlearning, recovery, share) == ("", "", "")
            continue
        cases = {
            (row["seed"], row["target"])
            for row in run.scores.selected(line.label, line.at, "forget_accuracy")
        }

        def mean(label, at, cases=cases):
            rows = [row for row in run.scores.rows_at(label, at) if (row["seed"], row["target"]) in cases]
            return sum(row["cost"]["seconds"] for row in rows) / len(rows) if rows else None

        spent, whole = mean(line.label, line.at), mean("retrain", line.at)
        if line.label == "retrain":
            assert unlearning == magnitude(whole, "s")
            continue
        first = mean(line.label, "unlearned")
        if unlearning != "–":
            assert (unlearning, recovery) == (magnitude(first, "s"), magnitude(spent - first, "s"))
            assert share == (f"{100 * spent / whole:.1f} %" if whole else "–")


@pytest.mark.slow
def test_runs_compared_have_the_client_epochs_of_the_moment_beside_them(run):
    costs = listed(parse(render(run)))
    card = {"experiment": "e", "run": "e-1", "rows": run.scores.rows}
    console = Console(width=200, file=io.StringIO())
    console.print(comparison_table([card]))
    for label, at in [(label, run.scores.judged_at(label)) for label in run.scores.methods]:
        (line,) = re.findall(rf"^ *{label} .*$", console.file.getvalue(), re.MULTILINE)
        assert line.split()[1] == at
        assert line.split()[-2] == costs[label, at][0]


@pytest.mark.quick(run=1)
def test_a_share_of_retraining_says_of_which(run):
    page = parse(render(run))
    head = page.all("section", id="costs")[0].all("tr")[0]
    assert head.all("th")[-1].text == "of retraining when asked"
    costs = listed(page)
    if ("retrain", "request") in costs:
        assert costs["retrain", "request"][-1] == "100 %"
