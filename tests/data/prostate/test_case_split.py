"""Splits by case: nobody on two sides, the test set the same for everybody, clear words for too few."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.data.prostate.case_split import held_out, split_by_case
from fedunlearn.data.prostate.layout import SITES
from fedunlearn.data.slice_index import SliceIndex
from fedunlearn.errors import ConfigError


def index_of(cases, slices=3):
    """Return the index of sites with so many cases each, `slices` slices a case."""
    owners = np.array(
        [(site, case) for site, n in enumerate(cases) for case in range(n) for _ in range(slices)]
    )
    n = len(owners)
    return SliceIndex(
        owners[:, 0], owners[:, 1], np.tile(np.arange(slices), n // slices), np.ones((n, 2), np.float32)
    )


def cases_of(index, rows):
    return set(zip(index.site[rows].tolist(), index.case[rows].tolist(), strict=True))


@given(
    st.lists(st.integers(3, 30), min_size=1, max_size=6),
    st.sampled_from([0.0, 0.1, 0.2, 0.3]),
    st.integers(0, 5),
)
def test_every_case_is_on_one_side_in_the_shares_asked_for(cases, share, seed):
    index = index_of(cases)
    sides = split_by_case(index, SITES[: len(cases)], share, seed)
    assert sorted(np.concatenate(sides)) == list(range(len(index)))
    train, validation, test = (cases_of(index, rows) for rows in sides)
    assert len(train) + len(validation) + len(test) == sum(cases), "no case on two sides"
    for site, n in enumerate(cases):
        sizes = [sum(owner == site for owner, _ in side) for side in (train, validation, test)]
        assert sizes[1] == (max(1, round(share * n)) if share else 0)
        assert sizes[2] == max(1, round(0.2 * n))
        assert sizes[0] >= 1
    for rows in sides:
        assert rows.dtype == np.int64
        assert (np.diff(rows) > 0).all()


def test_sixty_twenty_twenty():
    index = index_of([10, 25])
    assert [len(cases_of(index, rows)) for rows in split_by_case(index, SITES[:2], 0.2, 1)] == [21, 7, 7]


def test_the_seed_moves_validation_alone():
    index = index_of([20, 20])
    splits = [split_by_case(index, SITES[:2], 0.2, seed) for seed in (1, 1, 2)]
    for one, again in zip(splits[0], splits[1], strict=True):
        assert np.array_equal(one, again)
    assert np.array_equal(splits[0][2], splits[2][2])
    assert not np.array_equal(splits[0][1], splits[2][1])


def test_the_share_for_validation_does_not_move_the_test_set():
    index = index_of([20])
    tests = [split_by_case(index, ("HK",), share, 1)[2] for share in (0.0, 0.2, 0.5)]
    assert np.array_equal(tests[0], tests[1])
    assert np.array_equal(tests[0], tests[2])


def test_sites_are_drawn_for_on_their_own():
    both, alone = index_of([20, 20]), index_of([20])
    of_both = [rows[both.site[rows] == 1] - 60 for rows in split_by_case(both, ("BIDMC", "HK"), 0.2, 1)]
    for one, other in zip(of_both, split_by_case(alone, ("HK",), 0.2, 1), strict=True):
        assert np.array_equal(one, other)
    of_first = [rows[both.site[rows] == 0] for rows in split_by_case(both, ("BIDMC", "HK"), 0.2, 1)]
    assert not np.array_equal(of_first[2], of_both[2]), "equally many cases, not the same draw"


def test_a_case_that_is_missing_in_the_middle_is_no_matter():
    index = index_of([6])
    rows = np.flatnonzero(index.case != 2)
    train, validation, test = split_by_case(index.take(rows), ("UCL",), 0.2, 3)
    assert len(train) + len(validation) + len(test) == len(rows)
    assert len(test) == len(validation) == 3


@pytest.mark.parametrize(
    ("cases", "share", "message"),
    [
        (
            2,
            0.1,
            "site HK: has 2 cases that can be used, but 3 are needed (one each to train, to validate and to test)",
        ),
        (1, 0.0, "site HK: has 1 case that can be used, but 2 are needed (one each to train and to test)"),
        (
            5,
            0.7,
            "data.validation = 0.7: leaves none of the 5 cases of site HK to train on, as 1 are for testing",
        ),
    ],
)
def test_too_few_cases(cases, share, message):
    with pytest.raises(ConfigError) as caught:
        split_by_case(index_of([9, cases]), ("BIDMC", "HK"), share, 1)
    assert str(caught.value).startswith(message + "; ")


def test_a_site_without_any_case_is_named():
    with pytest.raises(ConfigError, match="site HK: has 0 cases"):
        split_by_case(index_of([9]), ("BIDMC", "HK"), 0.1, 1)


def test_a_share_is_at_least_one_case():
    assert [held_out(n, 0.01) for n in (1, 10, 200)] == [1, 1, 2]
    assert held_out(10, 0.0) == 0


def test_the_cases_of_every_site_are_pinned():
    """Which patients test is the same in every experiment, and in every version of this code."""
    index = index_of([10] * 6)
    _, validation, test = (cases_of(index, rows) for rows in split_by_case(index, SITES, 0.2, 1))
    by_site = [
        [sorted(case for owner, case in side if owner == site) for site in range(6)]
        for side in (test, validation)
    ]
    assert by_site == [
        [[4, 5], [0, 6], [2, 7], [5, 8], [1, 4], [1, 7]],
        [[0, 9], [1, 4], [3, 4], [3, 9], [3, 5], [4, 9]],
    ]
