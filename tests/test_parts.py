"""Parts of clients' data: which rows they have, and who leaves out which of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.errors import ConfigError
from fedunlearn.parts import Assignment, Part, Parts

LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
labels = st.lists(st.integers(0, 3), min_size=1, max_size=30).map(np.array)


def rows(**wanted):
    return Part(10, 3, **wanted).rows(LABELS, seed=1).tolist()


def test_classes_and_single_rows_are_what_they_say():
    assert rows(classes=(2,)) == [2, 5, 8]
    assert rows(classes=(0, 2)) == [0, 2, 3, 5, 6, 8, 9]
    assert rows(samples=(7, 2)) == [2, 7]
    assert rows(samples=(2, 7), classes=(1,)) == [7]
    assert rows() == list(range(10))


@given(labels, st.floats(0.01, 1), st.integers(0, 2**32))
def test_a_share_is_as_many_rows_as_it_says_drawn_by_seed_and_number(labels, share, seed):
    part = Part(10, 3, samples=share)
    drawn = part.rows(labels, seed)
    assert len(drawn) == round(share * len(labels)) == len(set(drawn.tolist()))
    assert (np.sort(drawn) == drawn).all() and (drawn < len(labels)).all()
    assert (part.rows(labels, seed) == drawn).all()


def test_another_seed_or_number_draws_other_rows():
    many = np.zeros(1000, dtype=int)
    drawn = [Part(n, 3, samples=0.5).rows(many, seed).tolist() for n, seed in ((10, 1), (10, 2), (11, 1))]
    assert drawn[0] != drawn[1] and drawn[0] != drawn[2]
    assert all(200 < len(set(drawn[0]) & set(other)) < 300 for other in drawn[1:]), "independent draws"


def test_a_share_of_classes_is_a_share_of_their_rows():
    assert len(rows(samples=0.5, classes=(0,))) == 2
    assert set(rows(samples=0.5, classes=(0,))) <= {0, 3, 6, 9}


def test_rows_and_classes_that_the_client_does_not_have_are_not_there():
    assert rows(samples=(4, 10, 999_999)) == [4] and rows(samples=(10,)) == []
    assert rows(classes=(2, 3)) == [2, 5, 8] and rows(classes=(3,)) == rows(classes=(3,), samples=0.5) == []
    missing = Part(10, 3, samples=(4, 10)), Part(11, 3, classes=(3,))
    assert Assignment(3, missing[0]).rows(LABELS, 1).tolist() == [4]
    assert Assignment(3, None, missing).rows(LABELS, 1).tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_held_against_the_data_a_row_or_class_that_is_not_there_is_named():
    for part in (Part(10, 3, (4, 9)), Part(10, 3, 0.5, (0, 2)), Part(10, 3)):
        part.check(10, 3)
    with pytest.raises(ConfigError, match=r"client 3 has 10 rows, counted from 0; there is no row 10$"):
        Part(10, 3, samples=(4, 10)).check(10, 3)
    with pytest.raises(ConfigError, match=r"the data have 3 classes, counted from 0; there is no class 3$"):
        Part(10, 3, classes=(0, 3)).check(10, 3)


def test_an_assignment_is_named_by_its_client_and_part():
    assert str(Assignment(3)) == "client 3"
    assert str(Assignment(3, Part(10, 3, 0.5, (2,)))) == "client 3, 50 % of the samples of class 2"


parts = st.builds(
    Part,
    st.integers(10, 99),
    st.integers(0, 9),
    st.none() | st.floats(0.1, 1) | st.lists(st.integers(0, 9), min_size=1).map(tuple),
    st.none() | st.lists(st.integers(0, 3), min_size=1).map(tuple),
)


@given(parts, st.lists(parts, max_size=3).map(tuple))
def test_what_is_sent_is_what_arrives(part, without):
    for assignment in (Assignment(3, part, without), Assignment(3, None, without)):
        assert Assignment.loads(assignment.dumps()) == assignment


WHOLE = Assignment(3, Part(10, 3, 0.5, (2,))).dumps()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "{}",
        "[" * 100_000,
        WHOLE.replace("10", "[]"),
        WHOLE.replace("3", "null"),
        WHOLE[:-3],
    ]
    + [WHOLE.replace('"without": []', f'"without": {other}') for other in ("3", "[3]", "null", "[{}]")],
)
def test_what_is_no_assignment_is_one_line(text):
    with pytest.raises(ConfigError, match=r"^the server's message: assignment: ") as refused:
        Assignment.loads(text)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 200


@given(labels, st.none() | parts, st.lists(parts, max_size=3).map(tuple))
def test_an_assignment_is_its_part_less_what_is_left_out(labels, part, without):
    longest = max((max(p.samples) for p in (part, *without) if p and isinstance(p.samples, tuple)), default=0)
    labels = np.resize(labels, max(len(labels), longest + 1))
    wanted = set(range(len(labels))) if part is None else set(part.rows(labels, 1).tolist())
    for other in without:
        wanted -= set(other.rows(labels, 1).tolist())
    assert Assignment(3, part, without).rows(labels, 1).tolist() == sorted(wanted)


# -- who leaves out what: clients 0 to 9; parts 10 and 11 are client 3's, 12 client 4's ------------------------

PARTS = Parts([Part(10, 3, 0.5), Part(11, 3, classes=(2,)), Part(12, 4, 0.1)])


def test_owners():
    assert [PARTS.owner(n) for n in (3, 10, 11, 12)] == [3, 3, 3, 4]
    assert PARTS.clients([3, 10, 12, 7]) == {3, 7}


def test_who_trains_leaves_out_what_is_gone_and_who_forgets_what_was_forgotten_before():
    assert PARTS.without(train=[3, 4, 5], forget=[11], gone=[10, 11, 7], forgotten=[10]) == {
        3: (10, 11),
        11: (10,),
    }


def test_a_whole_client_that_is_forgotten_leaves_out_the_parts_forgotten_before():
    assert PARTS.without(train=[4], forget=[3], gone=[3, 10], forgotten=[10]) == {3: (10,)}


def test_without_parts_there_is_nothing_to_tell():
    assert Parts().without([1], [2], [3], [3]) == {} and not Parts()
    assert PARTS.assignments([1, 2], {}) == {}


def test_assignments_are_for_those_who_do_not_work_with_everything():
    found = PARTS.assignments([3, 4, 11], {3: (10, 11)})
    assert found == {
        3: Assignment(3, None, (PARTS[10], PARTS[11])),
        11: Assignment(3, PARTS[11], ()),
    }
