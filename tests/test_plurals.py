"""One thing is singular, in every message that counts."""

import pytest

from fedunlearn.plurals import counted


@pytest.mark.parametrize(
    ("number", "words", "expected"),
    [
        (0, ("row",), "0 rows"),
        (1, ("row",), "1 row"),
        (2, ("row",), "2 rows"),
        (1204, ("entry is", "entries are"), "1,204 entries are"),
        (1, ("entry is", "entries are"), "1 entry is"),
    ],
)
def test_one_is_singular(number, words, expected):
    assert counted(number, *words) == expected
