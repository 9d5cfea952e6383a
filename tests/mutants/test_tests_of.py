"""The tests for a change: who runs its line; where nobody does, whoever may look at what the line says."""

from __future__ import annotations

import pytest

from tests.mutants.tests_of import SOURCE_READERS, Trace

NEAR, FAR, LOOKS, ALL = (
    "tests/data/test_a.py::test_near",
    "tests/report/test_b.py::test_far",
    "tests/data/test_c.py::test_documented",
    "tests/test_imports.py::test_every_file",
)
TRACE = Trace(
    {"fedunlearn/data/a.py": {1: frozenset(), 2: frozenset({NEAR, FAR})}},
    {NEAR: 3.0, FAR: 1.0, LOOKS: 2.0, ALL: 0.5, "tests/report/test_b.py::test_other": 0.1},
)


@pytest.mark.parametrize(
    ("file", "line", "tests"),
    [
        ("fedunlearn/data/a.py", 2, [NEAR, FAR]),
        ("fedunlearn/data/a.py", 1, [LOOKS, NEAR, ALL, FAR]),
        ("fedunlearn/data/never_run.py", 7, [LOOKS, NEAR, ALL]),
        ("fedunlearn/home.py", 1, [ALL]),
    ],
)
def test_the_nearest_come_first_then_the_quickest(file: str, line: int, tests: list[str]) -> None:
    assert TRACE.chosen(file, line, 60) == [*tests, *SOURCE_READERS]


def test_there_is_time_for_so_many() -> None:
    assert TRACE.chosen("fedunlearn/data/a.py", 1, 5.6) == [LOOKS, NEAR, ALL, *SOURCE_READERS]


def test_tests_added_since_the_trace_are_run_where_they_lie_beside_the_change() -> None:
    added = "tests/data/test_new.py::test_new"
    trace = Trace(TRACE.lines, TRACE.seconds, frozenset({added, "tests/report/test_new.py::test_elsewhere"}))
    assert trace.chosen("fedunlearn/data/a.py", 2, 60) == [added, NEAR, FAR, *SOURCE_READERS]
