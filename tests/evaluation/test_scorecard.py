"""The scorecard's numbers and its file: signed gaps, floors, one text for one content."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.evaluation import metric
from fedunlearn.evaluation.evidence import Evidence
from fedunlearn.evaluation.floors import Outlier
from fedunlearn.evaluation.measures import measure
from fedunlearn.evaluation.metrics import BUILT_IN
from fedunlearn.evaluation.outputs import ModelOutputs
from fedunlearn.evaluation.rows import AT, Scale
from fedunlearn.evaluation.scorecard import SCHEMA, dumps, scorecard
from tests.evaluation.builders import two_class
from tests.evaluation.equal_cards import without_seconds
from tests.evaluation.test_aggregates import row

ROW_KEYS = {
    "method", "label", "seed", "request", "target", "forget", "at", "round", "metrics", "gap", "floor",
    "floors", "recovery_rounds", "recovery_rounds_authors", "recovered", "scale", "cost", "reason",
}  # fmt: skip
LINE_KEYS = {
    "label", "at", "n", "censored", "metrics", "gap", "abs_gap", "floor", "floor_range",
    "recovery_rounds", "recovery_rounds_authors", "cost",
}  # fmt: skip


def a_row():
    return row(
        scale=Scale(raw=20.0, effective={3: 1.9, 10: 0.1}, group=2.0),
        request="r1",
        metrics={"test_accuracy": 90.0, "mia_auc": None},
        floors={"test_accuracy": (0.5, None, 1.5)},
        outliers=(Outlier("floor-0-s1-3", "test_accuracy", 62.0, 90.0),),
        reason="mia_auc: there is no test data",
    )


def test_the_keys_are_the_schemas():
    card = scorecard("quickstart", "quickstart-0a1b2c3d", [a_row()])
    assert set(card) == {"schema", "experiment", "run", "rows", "aggregates"}
    assert card["schema"] == 2
    assert set(card["rows"][0]) == ROW_KEYS | {"outliers"}
    assert set(row(outliers=()).as_dict()) == ROW_KEYS
    assert set(card["rows"][0]["outliers"][0]) == {"retraining", "measure", "value", "median"}
    assert set(card["rows"][0]["forget"]) == {"clients", "samples", "classes"}
    assert set(card["rows"][0]["scale"]) == {"raw", "effective", "group"}
    assert set(card["rows"][0]["cost"]) == {"client_epochs", "bytes_up", "bytes_down", "seconds", "cached"}
    assert set(card["aggregates"][0]) == LINE_KEYS


def test_a_row_in_the_file_says_what_the_row_does():
    found = json.loads(dumps(scorecard("e", "r", [a_row()])))["rows"][0]
    assert found["scale"] == {"raw": 20.0, "effective": {"3": 1.9, "10": 0.1}, "group": 2.0}
    assert found["metrics"] == {"test_accuracy": 90.0, "mia_auc": None}
    assert found["floors"] == {"test_accuracy": [0.5, None, 1.5]}
    outlier = {"retraining": "floor-0-s1-3", "measure": "test_accuracy", "value": 62.0, "median": 90.0}
    assert found["outliers"] == [outlier]
    assert (found["request"], found["reason"]) == ("r1", "mia_auc: there is no test data")
    assert json.loads(dumps(scorecard("e", "r", [row(scale=None)])))["rows"][0]["scale"] is None


@pytest.mark.parametrize("at", AT)
def test_every_moment_has_a_row(at):
    assert row(at=at).at == at


def test_an_unknown_moment_is_refused():
    with pytest.raises(ValueError, match="at = 'later': must be one of"):
        row(at="later")


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=3), json_like, max_size=4))
def test_the_text_is_canonical(card):
    text = dumps(card)
    assert dumps(json.loads(text)) == text
    assert dumps(dict(reversed(card.items()))) == text
    assert text.endswith("\n")


def test_numbers_are_rounded_and_zero_has_no_sign():
    assert json.loads(dumps({"a": 1 / 3, "b": 2.0000000001})) == {"a": 0.333333, "b": 2.0}
    assert "-0.0" not in dumps({"a": -0.0, "b": -1e-9})
    assert dumps({"a": np.float32(0.5), "b": np.int64(3), "c": (1, 2)}) == dumps(
        {"a": 0.5, "b": 3, "c": [1, 2]}
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_json_cannot_say_is_refused_by_place(bad):
    with pytest.raises(ValueError, match=r"scorecard\.rows\[0\]\.a = (nan|inf): must be finite"):
        dumps({"rows": [{"a": bad}]})
    with pytest.raises(TypeError, match=r"scorecard\.rows = \{1\}"):
        dumps({"rows": {1}})


def test_two_runs_agree_but_for_seconds_and_nothing_else():
    first = a_row()
    again = replace(first, cost=replace(first.cost, seconds=99.0, cached=True))
    other = replace(first, cost=replace(first.cost, bytes_up=101))
    cards = [scorecard("e", "r", [each]) for each in (first, again, other)]
    texts = [dumps(without_seconds(card)) for card in cards]
    assert texts[0] == texts[1] != texts[2]
    assert dumps(cards[0]) != dumps(cards[1])
    assert cards[0]["rows"][0]["cost"]["seconds"] == 3.0  # the card itself is left whole


def test_the_task_is_said_where_it_is_not_classification():
    assert scorecard("e", "r", []).keys().isdisjoint({"task"})
    assert scorecard("e", "r", [], task="classification") == scorecard("e", "r", [])
    assert scorecard("e", "r", [], task="segmentation") == {**scorecard("e", "r", []), "task": "segmentation"}


def test_the_page_in_the_docs_names_every_key():
    page = (Path(__file__).parents[2] / "docs" / "scorecard.md").read_text()
    keys = ROW_KEYS | {"outliers", "diverged", "failed", "per_client", "per_class"}
    keys |= {"schema", "experiment", "run", "task", "rows", "aggregates", "floor_range"}
    assert not [key for key in keys if f"`{key}`" not in page]
    assert not [at for at in AT if f"`{at}`" not in page]
    assert f"`{SCHEMA}`" in page


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_page_in_the_docs_has_every_metric_as_it_is_declared(name):
    page = (Path(__file__).parents[2] / "docs" / "scorecard.md").read_text()
    own = BUILT_IN[name]
    task = "both" if len(own.tasks) > 1 else own.tasks[0]
    cells = (f"`{name}`", own.title, own.unit, own.better_words, task, ", ".join(own.needs))
    line = f"| {' | '.join((*cells, own.description.replace('|', chr(92) + '|')))} |"
    assert line in page.splitlines()


def test_the_metric_in_the_docs_works_as_it_stands(monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "scorecard.md").read_text()
    (source,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    monkeypatch.setattr(metric, "_defined", dict(metric._defined))
    found: dict = {"__name__": "my_package.my_module"}
    exec(source, found)
    outputs = ModelOutputs(two_class([1.0, -1.0, -2.0, 0.5], [0, 1, 0, 1]), None, None)
    evidence = Evidence(outputs, forget=np.array([0, 1, 2]), retain=np.array([3]), seed=1)
    assert measure(evidence, [found["forget_doubt"]]) == {"forget_doubt": pytest.approx(200 / 3)}
