"""One thing is singular, in every message that counts."""

import pytest

from fedunlearn.plurals import clients, counted, joined, some, whose


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


@pytest.mark.parametrize(
    ("words", "expected"),
    [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")],
)
def test_the_last_of_several_stands_behind_an_and(words, expected):
    assert joined(words) == expected


def test_of_many_the_first_are_named_and_the_others_counted():
    assert [some(list("abc"), most) for most in (4, 3, 2, 1)] == [
        "a, b, c",
        "a, b, c",
        "a, b and 1 more",
        "a and 2 more",
    ]
    assert some(["a"] * 1205, 1) == "a and 1,204 more"


def test_clients_and_what_of_whose_data():
    assert [clients(range(n)) for n in (1, 2, 3)] == ["client 0", "clients 0 and 1", "clients 0, 1 and 2"]
    parts = [("class 2", 7), ("half", 4), ("class 2", 1)]
    assert whose([0, 3], parts) == "clients 0 and 3, class 2 of clients 1 and 7 and half of client 4"
    assert whose([], parts[:1]) == "class 2 of client 7"
    assert whose([], parts[:1], named=lambda numbers: f"{len(numbers)} sites") == "class 2 of 1 sites"
    assert whose([], []) == ""
