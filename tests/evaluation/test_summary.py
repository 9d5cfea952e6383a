"""Average Gap and ToW: by hand, by an oracle, and from evidence."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.evaluation.evidence import Evidence, Retrained
from fedunlearn.evaluation.measures import measure
from fedunlearn.evaluation.metrics import BUILT_IN, computed
from fedunlearn.evaluation.outputs import ModelOutputs
from fedunlearn.evaluation.summary import average_gap, tug_of_war
from tests.evaluation.builders import split, splits, two_class
from tests.oracles.summaries import summaries

percents = st.floats(-100, 100)
TEST = split([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0], [0, 0, 3]], [0, 0, 1, 2, 2])


def test_by_hand():
    assert average_gap([4.0, -1.0, -1.0, 6.0]) == (4 + 1 + 1 + 6) / 4
    assert tug_of_war([4.0, -1.0, -1.0]) == pytest.approx(0.96 * 0.99 * 0.99)


@given(percents, percents, percents, percents)
def test_they_are_symmetric_and_within_bounds(forget, retain, test, attack):
    gaps = [forget, retain, test, attack]
    assert average_gap(gaps) == average_gap([-gap for gap in gaps])
    assert tug_of_war(gaps[:3]) == tug_of_war([-gap for gap in gaps[:3]])
    assert 0 <= average_gap(gaps) <= 100
    assert 0 <= tug_of_war(gaps[:3]) <= 1


def evidence_of(train, test, forget, retain, values):
    outputs = ModelOutputs(train, None, test)
    return Evidence(
        outputs,
        forget=np.array(forget),
        retain=np.array(retain),
        seed=1,
        retrained=Retrained(outputs, None, values),
    )


def taken(evidence):
    return measure(evidence, [m for m in computed("classification").values() if "weights" not in m.needs])


@pytest.mark.slow
@pytest.mark.parametrize("forget", [[0, 1], [0, 3]], ids=["samples", "a class"])
@given(splits(least=6, most=6), splits(least=6, most=6))
def test_from_evidence_they_are_the_oracle_s(forget, mine, theirs):
    labels = split([[9.0, 0, 0]] * 6, [0, 1, 2, 0, 1, 2]).labels
    mine, theirs = (type(each)(each.logits, labels) for each in (mine, theirs))
    retain = [row for row in range(6) if row not in forget]
    retrained = taken(evidence_of(theirs, TEST, forget, retain, None))
    found = taken(evidence_of(mine, TEST, forget, retain, retrained))
    assert ("retain_test_accuracy" in found) == (forget == [0, 3])
    expected = summaries(found, retrained)
    assert None not in expected.values()
    assert {name: found[name] for name in expected} == expected


def test_of_a_class_test_data_of_the_others_alone_count():
    train = split([[9.0, 0, 0], [0, 9, 0], [0, 0, 9]], [0, 1, 2])
    values = {"forget_accuracy": 100.0, "retain_accuracy": 100.0, "test_accuracy": 0.0, "mia_svc": None}
    found = taken(evidence_of(train, TEST, [0], [1, 2], values | {"retain_test_accuracy": 100 / 3}))
    assert found["retain_test_accuracy"] == pytest.approx(100 / 3) != found["test_accuracy"]
    assert found["tug_of_war"] == pytest.approx(1.0)


def test_retraining_itself_is_as_good_as_can_be():
    train = two_class([1.0, 2.0, 3.0, 1.0], [0, 1, 0, 1])
    found = taken(evidence_of(train, two_class([1.0, 2.0], [0, 1]), [0, 1], [2, 3], None))
    assert (found["average_gap"], found["tug_of_war"]) == (0.0, 1.0)


@pytest.mark.parametrize("name", ["forget_accuracy", "retain_accuracy", "test_accuracy", "mia_svc"])
def test_null_where_a_part_is_not_known_of_the_retrained_model(name):
    train, test = two_class([1.0, 2.0, 3.0, 1.0], [0, 1, 0, 1]), two_class([1.0, 2.0], [0, 1])
    known = dict.fromkeys(["forget_accuracy", "retain_accuracy", "test_accuracy", "mia_svc"], 50.0)
    found = taken(evidence_of(train, test, [0, 1], [2, 3], known | {name: None}))
    reason = f"{name} of the retrained model was not measured"
    assert found["average_gap"] is None and found.reasons["average_gap"] == reason
    assert (found["tug_of_war"] is None) == (name != "mia_svc")


def test_null_where_a_part_cannot_be_measured():
    train = two_class([1.0, 2.0, 3.0, 1.0], [0, 1, 0, 1])
    known = dict.fromkeys(["forget_accuracy", "retain_accuracy", "test_accuracy", "mia_svc"], 50.0)
    found = taken(evidence_of(train, None, [0, 1], [2, 3], known))
    assert found["average_gap"] is found["tug_of_war"] is None
    assert found.reasons["tug_of_war"] == "test_accuracy was not measured"


def test_without_a_retrained_model_there_is_nothing_to_compare():
    train = two_class([1.0, 2.0, 3.0, 1.0], [0, 1, 0, 1])
    evidence = Evidence(ModelOutputs(train, None, train), np.array([0, 1]), np.array([2, 3]), seed=1)
    found = measure(evidence, [BUILT_IN["average_gap"], BUILT_IN["l2_to_retrain"]])
    assert found.reason == (
        "average_gap: there is no retrained model to compare with; l2_to_retrain: the model's weights are not kept"
    )
