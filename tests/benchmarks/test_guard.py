"""The guard: worse than recorded fails, as recorded passes, and a slow moment is given a second chance."""

import json

import pytest

from benchmarks import guard
from benchmarks.cases import CASES
from benchmarks.guard import GUARDED, Record
from fedunlearn.errors import UserError
from tests.benchmarks.tiny import TINY

RECORD = Record(1.5, {("tiny", "local"): 1.0, ("tiny", "batched"): 0.2})
ROWS = {TINY: ("local", "batched")}


def measuring(*measurements):
    """Return a function that measures these, one after the other, and how often it was asked."""
    left = list(measurements)
    return lambda case, rows: left.pop(0)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.49])
def test_as_fast_as_recorded_passes(ratio):
    assert guard.check(RECORD, measuring({"local": ratio, "batched": 0.2}), ROWS) == []


def test_slower_than_recorded_fails_with_a_line_that_says_how_much():
    slow = {"local": 1.0, "batched": 0.4}
    (line,) = guard.check(RECORD, measuring(slow, slow), ROWS)
    assert line == "tiny, batched: 0.40 × the bare loop, recorded 0.20, allowed 0.30 (1.5 ×)"


def test_a_slow_moment_is_measured_again():
    first, second = {"local": 9.0, "batched": 0.2}, {"local": 1.0, "batched": 0.9}
    assert guard.check(RECORD, measuring(first, second), ROWS) == []


def test_a_row_that_is_gone_fails():
    gone = {"local": 1.0, "batched": "no such engine"}
    (line,) = guard.check(RECORD, measuring(gone, gone), ROWS)
    assert "batched: cannot be measured any more: no such engine" in line


def test_a_row_without_a_record_fails_with_the_remedy_only_where_it_can_be_measured():
    record = Record(1.5, {("tiny", "local"): 1.0})
    assert guard.check(record, measuring({"local": 1.0, "batched": "not here"}), ROWS) == []
    new = {"local": 1.0, "batched": 0.2}
    (line,) = guard.check(record, measuring(new, new), ROWS)
    assert "nothing on record: python -m benchmarks.engines --record" in line


def test_every_row_is_reported():
    lines = []
    guard.check(RECORD, measuring({"local": 1.0, "batched": 0.2}), ROWS, lines.append)
    assert lines == [
        "tiny, local: 1.00 × the bare loop, recorded 1.00",
        "tiny, batched: 0.20 × the bare loop, recorded 0.20",
    ]


def test_what_is_recorded_is_read_again(tmp_path):
    path = tmp_path / "recorded.json"
    guard.record(path, measuring({"local": 1.23456, "batched": "not here"}), ROWS)
    assert Record.read(path) == Record(1.5, {("tiny", "local"): 1.2346})
    assert json.loads(path.read_text())["machine"]["cores"] >= 1


def test_a_file_without_ratios_is_named(tmp_path):
    with pytest.raises(UserError, match=r"recorded.json: holds no recorded ratios"):
        Record.read(tmp_path / "recorded.json")


def test_the_committed_record_is_of_rows_that_are_guarded():
    recorded = Record.read()
    assert recorded.factor == guard.FACTOR
    assert set(recorded.ratios) == {(case.name, row) for case, rows in GUARDED.items() for row in rows}
    assert all(0 < ratio < 10 for ratio in recorded.ratios.values())


def test_guarded_cases_are_those_of_the_tables_with_fewer_rounds():
    for case in GUARDED:
        whole = CASES[case.name]
        assert 0 < case.rounds < whole.rounds
        assert case == whole.shortened(case.rounds)


def test_rows_are_really_measured():
    found = guard.measured(TINY, ("local", "batched"))
    assert 0.05 < found["local"] < 20
    assert 0.05 < found["batched"] < 20
