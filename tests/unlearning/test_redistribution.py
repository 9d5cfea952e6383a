"""Where a dropped class's probability goes: on any model's probabilities, in any order of classes."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from fedunlearn.errors import UserError
from fedunlearn.unlearning import redistribution as ours
from tests.oracles import unlearning_outputs as oracle

CLASSES = 5


def simplex(rng, count, classes=CLASSES, sharpness=1.0):
    return rng.dirichlet(np.full(classes, sharpness), size=count)


def stochastic(rng, classes, num_classes=CLASSES):
    """Return rows of R on all other classes, dropped ones among them."""
    rows = simplex(rng, len(classes), num_classes)
    rows[np.arange(len(classes)), list(classes)] = 0
    return rows / rows.sum(axis=1, keepdims=True)


def leaving(rows, classes):
    """Return the least share that a dropped class gives to classes that stay."""
    return rows[:, [j for j in range(CLASSES) if j not in classes]].sum(axis=1).min()


def dropped(classes, rows):
    return ours.drop(ours.nothing_dropped(CLASSES), list(classes), np.asarray(rows))


requests = st.sets(st.integers(0, CLASSES - 1), min_size=1, max_size=CLASSES - 1).map(sorted)


# -- the transfer ---------------------------------------------------------------------------------------------


@given(requests, st.integers(0, 2**16))
def test_it_is_what_hands_on_and_hands_on_end_in(classes, seed):
    rng = np.random.default_rng(seed)
    rows, p = stochastic(rng, classes), simplex(rng, 4)
    assume(leaving(rows, classes) > 0.02)  # or the oracle takes too many hops
    found = ours.redistribute(p, dropped(classes, rows))
    for before, after in zip(p, found, strict=True):
        expected = oracle.pushed_on(before, dict(zip(classes, rows, strict=True)))
        np.testing.assert_allclose(after, expected, rtol=0, atol=1e-9)


@given(requests, st.integers(0, 2**16))
def test_it_is_the_closed_form_of_absorption(classes, seed):
    rows = stochastic(np.random.default_rng(seed), classes)
    stay = [j for j in range(CLASSES) if j not in classes]
    expected = np.linalg.solve(np.eye(len(classes)) - rows[:, classes], rows[:, stay])
    np.testing.assert_allclose(dropped(classes, rows)[np.ix_(classes, stay)], expected, rtol=0, atol=1e-9)


@given(requests, st.integers(0, 2**16), st.randoms(use_true_random=False))
def test_for_fixed_r_the_order_does_not_matter(classes, seed, shuffled):
    rows = stochastic(np.random.default_rng(seed), classes)
    assume(leaving(rows, classes) > 1e-3)  # rows that lie on dropped classes but for a hair lose digits
    order = shuffled.sample(range(len(classes)), len(classes))
    one = dropped(classes, rows)
    other = dropped([classes[i] for i in order], rows[order])
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("fixed", [(), (1,), (1, 3), (0, 1, 3)])
def test_nor_does_it_where_some_classes_go_in_proportion(fixed):
    rng = np.random.default_rng(1)
    rows = stochastic(rng, [0, 1, 3])
    rows[[i for i, f in enumerate([0, 1, 3]) if f not in fixed]] = 0
    p = simplex(rng, 3)
    found = [
        ours.redistribute(p, dropped([[0, 1, 3][i] for i in order], rows[list(order)]))
        for order in permutations(range(3))
    ]
    for other in found[1:]:
        np.testing.assert_allclose(found[0], other, rtol=0, atol=1e-12)
    shares = {f: row if f in fixed else None for f, row in zip([0, 1, 3], rows, strict=True)}
    np.testing.assert_allclose(found[0], [oracle.pushed_on(row, shares) for row in p], rtol=0, atol=1e-12)


@given(requests, st.integers(0, 2**16), st.sampled_from(sorted(ours.VARIANTS)), st.floats(0.02, 5))
def test_it_stays_on_the_simplex(classes, seed, variant, sharpness):
    rng = np.random.default_rng(seed)
    p = simplex(rng, 30, sharpness=sharpness)
    labels = rng.integers(CLASSES, size=30)
    start = ours.nothing_dropped(CLASSES)
    with np.errstate(divide="ignore"):
        rows = ours.VARIANTS[variant].rows(np.log(p), labels, classes, start, 3)
    found = ours.redistribute(p, ours.drop(start, classes, rows))
    assert (found >= 0).all() and (found[:, classes] == 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=0, atol=1e-12)
    if not set(classes) & set(np.argmax(p, axis=1)) and variant == "proportional":
        np.testing.assert_array_equal(found.argmax(axis=1), p.argmax(axis=1))


def test_dropped_classes_that_hand_all_they_have_to_each_other_are_refused():
    with pytest.raises(UserError, match="class 2 passes everything to classes that pass it back"):
        dropped([0, 2], [[0, 0, 1, 0, 0], [1, 0, 0, 0, 0]])


def test_one_class_must_stay():
    with pytest.raises(UserError, match="without class 4 no class is left"):
        dropped(range(CLASSES), np.zeros((CLASSES, CLASSES)))


def test_a_class_that_is_gone_stays_as_it_went():
    once = dropped([1], [[0, 0, 1, 0, 0]])
    assert (ours.drop(once, [1], np.array([[1.0, 0, 0, 0, 0]])) == once).all()


def test_certainty_of_a_dropped_class_leaves_the_others_alike():
    p = np.array([[0.0, 1.0, 0.0, 0.0, 0.0]])
    found = ours.redistribute(p, dropped([1], np.zeros((1, CLASSES))))
    assert found.tolist() == [[0.25, 0, 0.25, 0.25, 0.25]]


def test_tensors_and_arrays_give_the_same():
    p = simplex(np.random.default_rng(0), 4)
    transfer = dropped([1, 2], stochastic(np.random.default_rng(1), [1, 2]))
    tensors = ours.redistribute(torch.from_numpy(p), torch.from_numpy(transfer))
    np.testing.assert_allclose(tensors.numpy(), ours.redistribute(p, transfer), rtol=0, atol=1e-15)


# -- of several clients -----------------------------------------------------------------------------------------


def test_filters_merged_drop_what_any_of_them_drops():
    """Row by row the mean of those who dropped the class; then as if one had dropped all of them."""
    rng = np.random.default_rng(3)
    first, second, third = stochastic(rng, [1, 3]), stochastic(rng, [3]), np.zeros((1, CLASSES))
    transfers = [dropped([1, 3], first), dropped([3], second), dropped([0], third)]
    found, p = ours.merged(transfers, [10, 30, 5]), simplex(rng, 6)
    shares = {
        0: None,
        1: transfers[0][1],
        3: (10 * transfers[0][3] + 30 * transfers[1][3]) / 40,
    }
    expected = [oracle.pushed_on(row, shares) for row in p]
    np.testing.assert_allclose(ours.redistribute(p, found), expected, rtol=0, atol=1e-12)


@given(requests, st.integers(0, 2**16), st.lists(st.integers(1, 50), min_size=1, max_size=4))
def test_of_equal_filters_it_is_the_filter_and_of_one_too(classes, seed, weights):
    transfer = dropped(classes, stochastic(np.random.default_rng(seed), classes))
    np.testing.assert_allclose(ours.merged([transfer] * len(weights), weights), transfer, atol=1e-12)


def test_merged_ones_that_hand_all_to_each_other_share_it_out_in_proportion():
    one, other = dropped([0], [[0, 0, 1, 0, 0]]), dropped([2], [[1, 0, 0, 0, 0]])
    p = simplex(np.random.default_rng(2), 3)
    found = ours.redistribute(p, ours.merged([one, other], [1, 1]))
    np.testing.assert_allclose(found, [oracle.without(row, {0, 2}) for row in p], rtol=1e-12)


def test_merged_ones_leave_a_class():
    with pytest.raises(UserError, match="no class is left"):
        ours.merged([dropped([0, 1, 2], np.zeros((3, 5))), dropped([3, 4], np.zeros((2, 5)))], [1, 1])


# -- R --------------------------------------------------------------------------------------------------------

P = simplex(np.random.default_rng(7), 40)
LABELS = np.random.default_rng(8).integers(CLASSES, size=40)
START = ours.nothing_dropped(CLASSES)


def rows_of(variant, classes, p=P, labels=LABELS, steps=1):
    with np.errstate(divide="ignore"):
        return ours.VARIANTS[variant].rows(np.log(p), labels, classes, START, steps)


@pytest.mark.parametrize("classes", [[2], [0, 3], [0, 1, 2, 3]])
def test_in_proportion_is_the_softmax_without_the_classes(classes):
    found = ours.redistribute(P, dropped(classes, rows_of("proportional", classes)))
    np.testing.assert_allclose(found, [oracle.without(p, set(classes)) for p in P], rtol=1e-12)


def test_uniform_rows_end_in_equal_shares_of_the_classes_that_stay():
    transfer = dropped([0, 3], rows_of("uniform", [0, 3]))
    np.testing.assert_allclose(transfer[[0, 3]], np.tile([0, 1 / 3, 1 / 3, 0, 1 / 3], (2, 1)), atol=1e-15)


def test_constant_rows_are_the_mean_of_what_is_said_of_the_class():
    for f, row in zip([0, 3], rows_of("constant", [0, 3]), strict=True):
        np.testing.assert_allclose(row, oracle.mean_without(P[f == LABELS], f), rtol=1e-12)


def test_constant_rows_of_a_class_without_examples_or_doubts_are_uniform():
    certain = np.eye(CLASSES)[[1, 1]]
    np.testing.assert_allclose(
        rows_of("constant", [1], certain, np.array([1, 1])), [[0.25, 0, 0.25, 0.25, 0.25]]
    )
    np.testing.assert_allclose(rows_of("constant", [1], P[:0], LABELS[:0]), [[0.25, 0, 0.25, 0.25, 0.25]])


def likelihood(classes, rows):
    told = ~np.isin(LABELS, classes)
    shares = dict(zip(classes, rows, strict=True))
    return oracle.redistributed_likelihood(P[told], LABELS[told].tolist(), shares)


def test_one_step_counts_who_is_taken_for_the_class():
    taken = [0.0] * CLASSES
    for p, y in zip(P, LABELS, strict=True):
        if y != 2:
            taken[y] += p[2] / (p[y] + p[2] / (CLASSES - 1))
    np.testing.assert_allclose(rows_of("learnt", [2])[0], np.divide(taken, sum(taken)), rtol=1e-12)


@pytest.mark.parametrize("classes", [[2], [0, 3]])
def test_every_step_makes_the_examples_more_likely(classes):
    found = [likelihood(classes, rows_of("learnt", classes, steps=steps)) for steps in range(6)]
    assert found == sorted(found) and len(set(found)) == 6


@pytest.mark.parametrize("classes", [[2], [0, 3]])
def test_many_end_in_the_most_likely_rows(classes):
    rows = rows_of("learnt", classes, steps=1000)
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-12)
    assert (rows >= 0).all() and (rows[:, classes] == 0).all()
    best, rng = likelihood(classes, rows), np.random.default_rng(0)
    stay = [j for j in range(CLASSES) if j not in classes]
    for _ in range(300):
        other = np.zeros_like(rows)
        other[:, stay] = simplex(rng, len(classes), len(stay), sharpness=0.5)
        assert likelihood(classes, other) <= best + 1e-6
        assert likelihood(classes, 0.99 * rows + 0.01 * other) <= best + 1e-6


def test_learnt_rows_find_the_ones_that_made_the_labels():
    rng = np.random.default_rng(0)
    p, truth = simplex(rng, 20000), np.array([0.6, 0.1, 0.0, 0.3, 0.0])
    q = p + p[:, [2]] * truth
    q[:, 2] = 0
    labels = (q.cumsum(axis=1) > rng.random((len(q), 1))).argmax(axis=1)
    np.testing.assert_allclose(rows_of("learnt", [2], p, labels, steps=100)[0], truth, atol=0.06)


def test_learnt_rows_that_nobody_speaks_of_are_uniform():
    silent = P.copy()
    silent[:, 2] = 0
    expected = [[0.25, 0.25, 0, 0.25, 0.25]]
    np.testing.assert_allclose(rows_of("learnt", [2], silent), expected)
    np.testing.assert_allclose(rows_of("learnt", [2], P[:0], LABELS[:0]), expected)
