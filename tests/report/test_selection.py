"""Whatever stands beside each other is of the same seeds and forgotten data: every table, one run or several."""

import io
import re

import pytest
from rich.console import Console

from fedunlearn.errors import RunError
from fedunlearn.report.scores import Scores, TableLine
from fedunlearn.report.selection import case_of, common_cases
from fedunlearn.report.tables import centralised_tables, comparison_table, markdown, scorecard_table
from tests.report.cards import row, scores
from tests.report.test_verdict import HALF_RECOVERED


def shown(table):
    console = Console(width=100, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def card(rows, run="run-1", **known):
    costs = {"cost": {"client_epochs": 1, "bytes_up": 1, "bytes_down": 1, "seconds": 1.0}}
    return {"experiment": "e", "run": run, "rows": [{**each, **costs} for each in rows], **known}


def seeds(label, at, gaps, **more):
    return [row(label, at, gap, seed=seed, **more) for seed, gap in gaps.items()]


def test_a_case_is_a_seed_and_what_is_forgotten():
    one = row("puf", "cap", 1.0, case=3, seed=2)
    assert case_of(one) == case_of(row("other", "compare", 5.0, case=3, seed=2, target=7, request="target-7"))
    assert case_of(one) != case_of({**one, "seed": 1})
    for part in ({"classes": [2]}, {"samples": 0.5}, {"samples": 0.25}):
        assert case_of(one) != case_of({**one, "forget": {**one["forget"], **part}})
    assert case_of(one) != case_of({**one, "at": "final"})
    assert case_of(one) == case_of({**one, "forget": {"clients": (3,), "parts": []}})


def test_the_common_cases_are_those_of_all_sound_methods():
    a, b, wild = (seeds(label, "cap", {1: 1.0, 2: 1.0, 3: 1.0}) for label in ("a", "b", "wild"))
    b[2]["metrics"] = {"forget_accuracy": None}
    wild[0] |= {"metrics": {}, "diverged": True}
    found = common_cases({"a": a, "b": b, "wild": wild, "nothing": []}, "forget_accuracy")
    assert found == {case_of(a[0]), case_of(a[1])}
    assert common_cases({"wild": wild}, "forget_accuracy") == {case_of(wild[1]), case_of(wild[2])}
    assert common_cases({}, "forget_accuracy") == common_cases({"a": a}, "mia_svc") == frozenset()


def test_the_original_stands_in_tables_once_more_over_the_cases_of_a_moment_that_lacks_some():
    found = scores(*HALF_RECOVERED)
    (again,) = [line for line in found.lines() if line.again]
    assert again == TableLine("original", "compare", again=True)
    assert found.stat("original", "compare", "abs_gap", "forget_accuracy").values == (1.6,)
    assert found.counted(again) == "1/2"
    assert found.counted(TableLine("puf", "compare")) == "1/2"
    assert found.counted(TableLine("puf", "cap")) == "2"
    text = shown(scorecard_table(card(HALF_RECOVERED)))
    assert re.search(r"for compare +71\.6 1\.6 .* 1\*", text)
    assert re.search(r"request +74\.4 4\.4±4\.0 .* 2\b", text)
    assert re.search(r"\| original \| for compare \| 1/2 \| 71\.6 \|", markdown(card(HALF_RECOVERED)))


def test_compare_has_the_original_over_the_cases_that_the_methods_are_judged_by():
    rows = [each for each in HALF_RECOVERED if each["at"] != "cap"]
    text = shown(comparison_table([card(rows)]))
    original = next(line for line in text.splitlines() if line.split()[:1] == ["original"])
    assert original.split()[2] == "1.6" and original.split()[-1] == "1/2"
    text = shown(centralised_tables([card(rows)]))
    assert re.search(r"original +1/2 ", text)
    assert "(1.6)" in text and "(4.4)" not in text


def test_a_measure_that_one_method_lacks_in_a_case_is_compared_without_it():
    rows = [*seeds("original", "request", {1: 10.0, 2: 30.0}), *seeds("a", "cap", {1: 4.0, 2: 8.0})]
    rows += seeds("b", "cap", {1: 4.0, 2: 8.0})
    for each in rows:
        each["metrics"]["mia_svc"] = each["gap"]["mia_svc"] = each["metrics"]["forget_accuracy"]
    rows[-1]["metrics"]["mia_svc"] = rows[-1]["gap"]["mia_svc"] = None
    found = scores(*rows)
    assert [found.stat(label, "cap", "metrics", "mia_svc").values for label in ("a", "b")] == [
        (74.0,),
        (74.0,),
    ]
    assert found.stat("original", "cap", "metrics", "mia_svc").values == (80.0,)
    assert found.stat("a", "cap", "metrics", "forget_accuracy").n == 2


def test_runs_of_one_setting_are_compared_over_the_cases_of_both():
    def run(name, gaps, setting="digits, 10 clients"):
        rows = [*seeds("original", "request", dict.fromkeys(gaps, 20.0)), *seeds("puf", "cap", gaps)]
        return card(rows, f"{name}-1", setting=setting)

    def of(*cards):
        lines = [line.split() for line in shown(comparison_table(cards)).splitlines()]
        return [(line[2], line[-1]) for line in lines if line[:1] == ["puf"]]

    short, long = run("short", {1: 4.0}), run("long", {1: 6.0, 2: 16.0})
    assert of(long) == [("11.0±7.1", "2")]
    assert of(short, long) == [("4.0", "1"), ("6.0", "1/2")]
    other = run("other", {1: 4.0}, setting="others, 5 clients")
    assert of(other, long) == [("4.0", "1"), ("11.0±7.1", "2")], "no case of theirs is the same"
    apart = run("apart", {3: 4.0})
    assert of(apart, long) == [("4.0", "1"), ("11.0±7.1", "2")]
    assert "share no case: not comparable" in " ".join(shown(comparison_table([apart, long])).split())


@pytest.mark.parametrize(("metric", "mark"), [("mia_auc", "within"), ("theirs", ""), ("l2_to_retrain", "")])
def test_a_metric_whose_floor_is_no_match_has_no_mark(metric, mark):
    theirs = {"name": "theirs", "title": "theirs", "unit": "%", "description": "Theirs", "marked": False}
    rows = [
        *seeds("original", "request", {1: 20.0}, metric=metric),
        *seeds("puf", "cap", {1: 1.0}, metric=metric),
    ]
    assert Scores(card(rows, declared=[theirs])).mark("puf", "cap", metric) == mark


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"name": "x"}, "declared: must be a list of metrics; run the experiment again"),
        (["x"], "declared: must be a list of metrics; run the experiment again"),
        ([{"title": "x"}], "declared: metric None: the name must be lower-case letters"),
        (
            [{"name": "x", "title": "x", "unit": ["%"], "description": "x"}],
            "metric 'x': unit = ('%',): must say something",
        ),
        (
            [{"name": "x", "title": "x", "unit": "%", "description": "x", "retrained_value": "0"}],
            "must be a number",
        ),
        (
            [{"name": "x", "title": "x", "unit": "%", "description": "x", "heading": 3}],
            "heading = 3: must be a word",
        ),
    ],
)
def test_a_spoilt_declaration_is_one_line(declared, words):
    with pytest.raises(RunError, match=re.escape(words)):
        Scores(card([], declared=declared))


def test_a_mark_is_of_the_cases_that_the_number_is_of_and_none_where_the_original_has_one():
    def mark(gaps, originals, floor=2.0, its_floor=2.0):
        rows = [
            *seeds("original", "request", originals, floor=its_floor),
            *seeds("puf", "cap", gaps, floor=floor),
        ]
        return scores(*rows).mark("puf", "cap", "forget_accuracy")

    assert mark({1: 1.0}, {1: 20.0}) == "within"
    assert mark({1: 2.1}, {1: 20.0}) == ""
    assert mark({1: 1.0}, {1: 2.0}) == "blind"
    assert mark({1: 1.0}, {1: 5.0}, floor=15.2) == "blind"
    assert mark({1: 1.0}, {1: 5.0}, its_floor=6.0) == "blind"
    assert mark({1: 1.0}, {}) == mark({1: 1.0}, {1: None}) == "blind", "nobody knows"
    assert mark({1: 1.0}, {1: 1.5, 2: 90.0}) == "blind", "what is far away in another case does not count"
    assert (
        scores(*seeds("original", "request", {1: 1.0})).mark("original", "request", "forget_accuracy") == ""
    )


def test_marks_are_in_the_markdown():
    rows = [*seeds("original", "request", {1: 20.0}), *seeds("puf", "cap", {1: 1.0})]
    assert "| ✓ 1.0 |" in markdown(card(rows))
    assert "| ≈ 1.0 |" in markdown(card([row("original", "request", 1.5), *rows[1:]]))


def test_what_a_method_took_is_beside_what_retraining_took_in_the_same_cases():
    rows = card([*seeds("puf", "cap", {1: 1.0}), *seeds("retrain", "request", {1: 0.0, 2: 0.0})])["rows"]
    rows[2]["cost"] = {**rows[2]["cost"], "client_epochs": 99}
    assert Scores({"rows": rows}).cost_beside("puf", "cap", "retrain", "request", "client_epochs") == 1
