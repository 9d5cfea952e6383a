"""What `verify` says of many branches and many rounds fits on a screen, and leaves nothing out that is wrong."""

import pytest

from fedunlearn.certificates.findings import Finding
from fedunlearn.certificates.findings_in_words import counted, folded, ranges


@pytest.mark.parametrize(
    ("rounds", "words"),
    [
        ([], ""),
        ([7], "7"),
        ([1, 2], "1 to 2"),
        (range(1, 120), "1 to 119"),
        ([5, 1, 2, 3, 9, 8, 8], "1 to 3, 5, 8 to 9"),
        ([2, 4, 6], "2, 4, 6"),
    ],
)
def test_rounds_are_ranges(rounds, words):
    assert ranges(rounds) == words


def test_branches_are_counted_and_a_few_named():
    assert counted(["a"]) == "a"
    assert counted(["a", "b"]) == "2 branches (a, b)"
    assert counted(list("abc")) == "3 branches (a, b, c)"
    assert counted(list("abcde")) == "5 branches (a, b, c and others)"


def test_what_is_the_same_of_several_branches_is_one_line():
    def found(branch, count):
        yield Finding(True, f"trail of {branch}: {count} entries")
        yield Finding(None, f"signed heads of {branch}: there are none")

    lines = folded({"a-s0": found("a-s0", 3), "a-s0-2": found("a-s0-2", 3), "b": found("b", 5)})
    assert lines == [
        Finding(True, "trail of 2 branches (a-s0, a-s0-2): 3 entries"),
        Finding(None, "signed heads of 3 branches (a-s0, a-s0-2, b): there are none"),
        Finding(True, "trail of b: 5 entries"),
    ]


def test_what_is_not_as_it_should_be_is_never_folded_nor_another_outcome_beside_it():
    lines = folded(
        {
            branch: [Finding(holds, f"seals of {branch}: of round 3"), Finding(None, "request r1: has ended")]
            for branch, holds in {"a": False, "b": True, "c": False, "d": None}.items()
        }
    )
    told = [Finding(None, "request r1: has ended")]
    assert lines == [
        *(Finding(False, "seals of a: of round 3"), *told),
        *(Finding(True, "seals of b: of round 3"), *told),
        *(Finding(False, "seals of c: of round 3"), *told),
        *(Finding(None, "seals of d: of round 3"), *told),
    ]


def test_one_branch_reads_as_ever():
    found = [
        Finding(True, "trail of a: x of a: y"),
        Finding(False, "trail of a: x"),
        Finding(False, "trail of a: x"),
    ]
    assert folded({"a": found}) == found
