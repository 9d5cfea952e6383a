"""Measures beside the trail: JSON documents by stage, the latest counts."""

from pathlib import Path

import pytest

from fedunlearn.requests import Ledger, LedgerError


@pytest.fixture
def ledger(tmp_path: Path):
    with Ledger(tmp_path / "requests.sqlite") as opened:
        opened.submit("b", request_id="r", clients=[1])
        yield opened


def test_what_was_noted_is_read_back_by_stage_in_the_order_of_a_life(ledger: Ledger, tmp_path: Path) -> None:
    assert ledger.measures("b", "r") == {}
    documents = {
        "ended": {"forget_accuracy": None, "why": "the node was gone"},
        "before": {"forget_accuracy": 91.25, "histogram": [1, 0, 3]},
    }
    for stage, document in documents.items():
        ledger.note_measures("b", "r", stage, document)
    with Ledger(tmp_path / "requests.sqlite") as reader:
        assert list(reader.measures("b", "r").items()) == [
            ("before", documents["before"]),
            ("ended", documents["ended"]),
        ]
        assert reader.measures("other", "r") == {}


def test_a_round_executed_again_notes_in_the_same_place(ledger: Ledger) -> None:
    for accuracy in (90.0, 91.0, 91.0):
        ledger.note_measures("b", "r", "unlearned", {"accuracy": accuracy})
    assert ledger.measures("b", "r") == {"unlearned": {"accuracy": 91.0}}
    assert len(ledger.audit()) == 1, "measures are no part of the trail"


@pytest.mark.parametrize(
    ("request_id", "stage", "document", "says"),
    [
        ("unknown", "before", {}, "'unknown' is not in the ledger"),
        ("r", "after", {}, "measures of stage 'after': must be one of before, unlearned, ended"),
        ("r", "before", {"loss": float("nan")}, "before.loss = nan: must be finite"),
        ("r", "before", {3: 1}, "before has the key 3"),
    ],
)
def test_what_json_would_change_or_nobody_would_find_is_refused(
    ledger: Ledger, request_id: str, stage: str, document: dict[str, object], says: str
) -> None:
    with pytest.raises(LedgerError, match=says):
        ledger.note_measures("b", request_id, stage, document)
    assert ledger.measures("b", "r") == {}


def test_a_branch_put_in_anothers_place_leaves_no_measures_behind(ledger: Ledger) -> None:
    ledger.note_measures("b", "r", "before", {"accuracy": 1.0})
    ledger.submit("a", request_id="r", clients=[2])
    ledger.load("b", ledger.export("a"))
    assert ledger.measures("b", "r") == {}
