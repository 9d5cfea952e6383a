"""Label-matched draws: never more than there is, in the right proportions, as many as possible."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fedunlearn.evaluation.matching import draw, draw_by_label, label_quotas
from fedunlearn.evaluation.scored import Unmeasurable
from fedunlearn.randomness import numpy_generator

counts = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=6)


@given(counts, st.integers(1, 60) | st.none())
def test_quotas_are_the_proportions_rounded_and_nothing_more_fits(pairs, most):
    wanted, available = np.array(pairs).T
    assume(wanted.any())
    assume(not ((wanted > 0) & (available == 0)).any())
    quotas = label_quotas(wanted, available, most=most)
    total = wanted.sum()
    bounds = [a / f for f, a in pairs if f] + ([most / total] if most is not None else [])
    factor = min(bounds)
    assert (quotas <= available).all()
    assert (quotas[wanted == 0] == 0).all()
    assert (np.abs(quotas - factor * wanted) < 1 + 1e-9).all()
    assert quotas.sum() == int(factor * total + 1e-9)
    assert quotas.sum() >= 1
    assert most is None or quotas.sum() <= most


@given(counts)
def test_with_enough_of_everything_the_counts_are_the_forgotten_datas(pairs):
    wanted = np.array([f for f, _ in pairs])
    assume(wanted.any())
    assert (label_quotas(wanted, wanted + 5, most=int(wanted.sum())) == wanted).all()


def test_a_factor_above_one_takes_more_than_was_forgotten():
    assert label_quotas(np.array([1, 30, 0]), np.array([100, 90, 50])).tolist() == [3, 90, 0]


def test_remainders_go_to_the_largest_then_to_the_lower_label():
    assert label_quotas(np.array([1, 1, 2]), np.array([9, 9, 9]), most=3).tolist() == [1, 1, 1]
    assert label_quotas(np.array([1, 1, 1]), np.array([9, 9, 9]), most=2).tolist() == [1, 1, 0]


def test_a_label_that_cannot_be_matched_is_named():
    with pytest.raises(Unmeasurable, match="has label 0, 2, which"):
        label_quotas(np.array([3, 1, 1]), np.array([0, 5, 0]))


def test_nothing_forgotten_has_no_mix():
    with pytest.raises(Unmeasurable, match="no forgotten examples"):
        label_quotas(np.array([0, 0]), np.array([5, 5]))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(0, 5), st.data())
def test_a_draw_holds_exactly_its_quotas(labels, seed, data):
    labels = np.array(labels)
    held = np.bincount(labels, minlength=4)
    quotas = np.array([data.draw(st.integers(0, int(size))) for size in held])
    drawn = draw_by_label(labels, quotas, numpy_generator(seed, "membership"))
    assert (np.bincount(labels[drawn], minlength=4) == quotas).all()
    assert (np.diff(drawn) > 0).all()  # sorted, no example twice
    again = draw_by_label(labels, quotas, numpy_generator(seed, "membership"))
    assert (drawn == again).all()


def test_draws_depend_on_the_seed_and_reach_every_example():
    drawn = [draw(20, 5, numpy_generator(seed, "membership")) for seed in range(60)]
    assert {int(i) for part in drawn for i in part} == set(range(20))
    assert all(len(part) == 5 and (np.diff(part) > 0).all() for part in drawn)
    labels = np.zeros(20, dtype=int)
    by_label = [
        draw_by_label(labels, np.array([5]), numpy_generator(seed, "membership")) for seed in range(60)
    ]
    assert {int(i) for part in by_label for i in part} == set(range(20))
