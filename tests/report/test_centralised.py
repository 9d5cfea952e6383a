"""Centralised unlearning's own terms: arithmetic on the file's numbers, wherever they are shown."""

import io
import re

import pytest
from rich.console import Console

from fedunlearn.errors import UserError
from fedunlearn.evaluation.floors import floor_of, gaps
from fedunlearn.evaluation.rows import Cost, Forget, Row
from fedunlearn.evaluation.scorecard import scorecard
from fedunlearn.report import centralised
from fedunlearn.report.scores import Scores
from fedunlearn.report.tables import centralised_tables, markdown
from tests.oracles.summaries import summaries

RETRAIN = {"forget_accuracy": 90.0, "retain_accuracy": 99.0, "test_accuracy": 94.0, "mia_svc": 88.0}
SECOND = {"forget_accuracy": 91.0, "retain_accuracy": 99.0, "test_accuracy": 94.0, "mia_svc": 87.0}
ORIGINAL = {"forget_accuracy": 100.0, "retain_accuracy": 99.5, "test_accuracy": 94.5, "mia_svc": 99.0}
SALUN = {"forget_accuracy": 93.0, "retain_accuracy": 98.0, "test_accuracy": 92.0, "mia_svc": 90.0}
BETTER = {"forget_accuracy": 91.0, "retain_accuracy": 99.0, "test_accuracy": 94.0, "mia_svc": 89.0}


def row(label, at, metrics, seconds, *, seed=1):
    whole = {**metrics, **summaries(metrics, RETRAIN)}
    reference = {**RETRAIN, **summaries(RETRAIN, RETRAIN)}
    return Row(
        method=label, label=label, seed=seed, request="r1", target=0, forget=Forget((0,)), at=at, round=11,
        metrics=whole, gap=gaps(whole, reference),
        floor=floor_of(reference, [{**SECOND, **summaries(SECOND, RETRAIN)}]).median,
        cost=Cost(1, 1, 1, seconds),
    )  # fmt: skip


def card(name="study", **known):
    rows = [
        *(row("original", "request", ORIGINAL, 50, seed=seed) for seed in (1, 2)),
        *(row("retrain", "request", RETRAIN, 40, seed=seed) for seed in (1, 2)),
        *(row("retrain", "cap", RETRAIN, 44, seed=seed) for seed in (1, 2)),
        row("salun", "unlearned", SALUN, 6),
        row("salun", "cap", SALUN, 10),
        row("salun", "unlearned", BETTER, 8, seed=2),
        row("salun", "cap", BETTER, 12, seed=2),
    ]
    return {**scorecard(name, f"{name}-1a2b3c4d", rows), **known}


def shown(table, width=100):
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_the_lines_are_arithmetic_done_by_hand():
    found = {line.label: line for line in centralised.lines(Scores(card()))}
    assert [(line.at, line.n) for line in found.values()] == [("request", "2"), ("cap", "2"), ("cap", "2")]
    # UA 100 − 93 and 100 − 91; gaps 3 and 1. RA 98, 99: 1, 0. TA 92, 94: 2, 0. MIA-efficacy 10, 11: 2, 1.
    assert found["salun"].cells == (
        "8.0 ± 1.4 (2.0)",
        "98.5 ± 0.7 (0.5)",
        "93.0 ± 1.4 (1.0)",
        "10.5 ± 0.7 (1.5)",
        "1.2 ± 1.1",  # (3 + 1 + 2 + 2) / 4 = 2 and (1 + 0 + 0 + 1) / 4 = 0.5
        "0.966 ± 0.035",  # 0.97 · 0.99 · 0.98 and 0.99 · 1 · 1
        "7 s",
        "4 s",
        "25.0 %",  # 11 of the 44 s until the same moment
    )
    assert found["retrain"].cells == (
        "10.0 ± 0.0", "99.0 ± 0.0", "94.0 ± 0.0", "12.0 ± 0.0", "", "", "44 s", "", "",
    )  # fmt: skip
    assert found["original"].cells[:5] == (
        "0.0 ± 0.0 (10.0)", "99.5 ± 0.0 (0.5)", "94.5 ± 0.0 (0.5)", "1.0 ± 0.0 (11.0)", "5.5 ± 0.0",
    )  # fmt: skip
    assert found["original"].cells[6:] == ("", "", "")


def test_where_whole_classes_are_forgotten_test_accuracy_is_of_the_others():
    def of(metrics, remaining):
        return {**metrics, "retain_test_accuracy": remaining}

    def found(*second):
        rows = [
            *(row("retrain", "cap", of(RETRAIN, 97.0), 44, seed=seed) for seed in (1, 2)[: 1 + len(second)]),
            row("salun", "cap", of(SALUN, 94.0), 10),
            *(row("salun", "cap", metrics, 10, seed=2) for metrics in second),
        ]
        for each in rows:
            each.gap["retain_test_accuracy"] = (each.metrics.get("retain_test_accuracy") or 97.0) - 97.0
        lines = centralised.lines(Scores(scorecard("study", "study-1a2b3c4d", rows)))
        return {line.label: line.cells[2] for line in lines}

    assert found() == {"retrain": "97.0", "salun": "94.0 (3.0)"}
    # With another request, for a part of a client: one number for both can be of all test rows alone.
    assert found(BETTER)["salun"] == "93.0 ± 1.4 (1.0)"


def test_the_times_are_until_the_moment_of_the_gaps_however_early_a_method_recovered():
    rows = card()
    rows = {**rows, "rows": [*rows["rows"], row("salun", "recovered", SALUN, 9).as_dict()]}
    (line,) = [line for line in centralised.lines(Scores(rows)) if line.label == "salun"]
    assert (line.at, line.cells[6:]) == ("cap", ("7 s", "4 s", "25.0 %"))  # 9 s is until it recovered


def test_there_is_no_share_where_nothing_was_retrained_until_the_moment():
    rows = [row("retrain", "request", RETRAIN, 40), row("salun", "unlearned", SALUN, 6)]
    found = {line.label: line for line in centralised.lines(Scores(scorecard("study", "study-1a", rows)))}
    assert found["salun"].cells[6:] == ("6 s", "0 s", "–")
    assert (found["retrain"].at, found["retrain"].cells[6:]) == ("request", ("40 s", "", ""))


def test_the_terminal_shows_the_average_gaps_of_runs_and_then_each_run_in_100_columns():
    cards = [card("none", augmentation="none"), card("crops", augmentation="crop-flip+augmix")]
    text = shown(centralised_tables(cards))
    assert max(map(len, text.splitlines())) <= 100 and "…" not in text
    first, *rest = text.split("UA")
    assert re.search(r"run +salun +floor", first)
    first = " ".join(first.split())
    assert first.count("1.25 ± 1.06 (n 2)") == 2 and first.count("0.50 ± 0.00 (n 2)") == 2
    assert "augmentation: none" in first and "augmentation: crop-flip+augmix" in first
    assert len(rest) >= 2
    line = next(line for line in rest[0].splitlines() if line.startswith("salun"))
    figures = "8.0 (2.0) 98.5 (0.5) 93.0 (1.0) 10.5 (1.5) 1.2 ± 1.1 0.966 7 s 25.0 %"
    assert " ".join(line.split()) == f"salun 2 {figures}"


def test_one_run_alone_is_not_compared():
    assert "Average Gap to retraining" not in shown(centralised_tables([card()]))


def test_markdown_and_page_have_the_same_cells():
    scores = Scores(card())
    text, page = markdown(card()), str(centralised.unfolding(scores))
    section = text.partition("## In the terms of centralised unlearning")[2].partition("\n## ")[0]
    for line in centralised.lines(scores):
        assert f"| {line.label} | {line.at} | {line.n} | {' | '.join(line.cells)} |" in section
        for cell in line.cells:
            assert f"<td>{cell}</td>" in page


def test_masks_have_no_such_terms():
    dice = {**card(), "task": "segmentation"}
    assert centralised.lines(Scores(dice)) == []
    assert centralised.unfolding(Scores(dice)) is None
    assert "centralised unlearning" not in markdown(dice)
    with pytest.raises(UserError, match="judged by Dice, not accuracy; leave out --centralised"):
        centralised_tables([dice])


@pytest.mark.parametrize("width", [80, 100])
def test_no_column_is_cut_off(width):
    wide = {**SALUN, "forget_accuracy": 45.3, "retain_accuracy": 55.4, "test_accuracy": 52.1, "mia_svc": 40.2}
    rows = [row("retrain", "cap", RETRAIN, 4400), row("prune-then-unlearn", "cap", wide, 0.0837)]
    rows.append(row("retrain", "request", RETRAIN, 4000))
    text = shown(centralised_tables([scorecard("study", "study-1a2b3c4d", rows)]), width)
    heads = next(line for line in text.splitlines() if "UA" in line)
    assert heads.split()[-2:] == ["time", "share"]
    cells = ("54.7", "(44.7)", "55.4", "(43.6)", "52.1", "(41.9)", "59.8", "(47.8)", "44.5")
    assert all(cell in text for cell in cells)
    assert max(map(len, text.splitlines())) <= width
