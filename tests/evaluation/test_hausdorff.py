"""Distances of outlines in millimetres, against brute force over all pairs of their pixels."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.evaluation.hausdorff import distances
from fedunlearn.evaluation.mask_measures import mean_distance, missed
from fedunlearn.evaluation.scored import Unmeasurable
from tests.evaluation.masks import certain, outputs
from tests.oracles import segmentation as oracle
from tests.profiles import some

EMPTY = torch.zeros(7, 9, dtype=torch.bool)


def dot(row, column):
    mask = EMPTY.clone()
    mask[row, column] = True
    return mask


def box(top, bottom, left, right):
    mask = EMPTY.clone()
    mask[top:bottom, left:right] = True
    return mask


@pytest.mark.slow
@some
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_against_brute_force_in_mm(seed, n):
    draw = np.random.default_rng(seed)
    share = draw.choice([0, 0.1, 0.5, 0.9, 1], size=(2, n, 1, 1))
    predicted, truth = torch.from_numpy(draw.random((2, n, 7, 9)) < share)
    spacing = draw.uniform(0.2, 3, size=(n, 2)).astype(np.float32)
    found = distances(predicted, truth, spacing)
    for i in range(n):
        expected = oracle.hausdorff_95(predicted[i].tolist(), truth[i].tolist(), spacing[i].tolist())
        if expected is None:
            assert np.isnan(found[i])
        else:
            assert found[i] == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.slow
def test_rows_and_columns_have_their_own_millimetres_and_slices_too():
    truth = torch.stack([dot(1, 1)] * 3)
    predicted = torch.stack([dot(4, 1), dot(1, 5), dot(4, 5)])
    spacing = np.array([[2.0, 0.5], [2.0, 0.5], [1.0, 1.0]], dtype=np.float32)
    assert distances(predicted, truth, spacing).tolist() == [6, 2, 5]


def test_equal_masks_are_at_no_distance_also_at_the_edge_of_the_image():
    masks = torch.stack([box(0, 7, 0, 9), box(0, 3, 4, 9), dot(6, 8)])
    assert distances(masks, masks, np.ones((3, 2), dtype=np.float32)).tolist() == [0, 0, 0]


def test_one_pixel_far_off_among_many_is_an_outlier():
    truth = box(1, 6, 1, 7)
    speck = truth | dot(0, 8)
    assert oracle.hausdorff_95(speck.tolist(), truth.tolist(), (1, 1)) < np.hypot(1, 2)
    found = distances(speck[None], truth[None], np.ones((1, 2), dtype=np.float32))
    assert found[0] == pytest.approx(oracle.hausdorff_95(speck.tolist(), truth.tolist(), (1, 1)), rel=1e-5)


def test_an_empty_mask_has_no_outline_and_nobody_warns():
    predicted = torch.stack([EMPTY, dot(1, 1), EMPTY, dot(1, 1)])
    truth = torch.stack([dot(1, 1), EMPTY, EMPTY, dot(1, 2)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = distances(predicted, truth, np.ones((4, 2), dtype=np.float32))
    np.testing.assert_array_equal(found, [np.nan, np.nan, np.nan, 1])


# -- over a split ---------------------------------------------------------------------------------------------


def on(predicted, truth, **options):
    masks = torch.stack(truth).to(torch.uint8)
    return outputs(certain(torch.stack(predicted).to(torch.uint8)), masks, **options)


def spacing(n):
    return np.full((n, 2), 0.5, dtype=np.float32)


def test_the_mean_is_over_slices_where_both_masks_are_there_and_missed_tells_of_the_others():
    found = on(
        [dot(1, 1), dot(1, 5), EMPTY, dot(2, 2)], [dot(1, 1), dot(1, 1), dot(1, 1), EMPTY], spacing=spacing(4)
    )
    assert mean_distance(found) == pytest.approx((0 + 2) / 2)
    assert missed(found) == pytest.approx(100 / 3), "a slice without a true mask cannot be missed"
    assert missed(found.take([0, 1])) == 0


def test_a_model_that_predicts_nothing_has_missed_all_and_has_no_distance():
    found = on([EMPTY, EMPTY], [dot(1, 1), dot(2, 2)], spacing=spacing(2))
    assert missed(found) == 100
    with pytest.raises(Unmeasurable, match="no slice with both"):
        mean_distance(found)


def test_without_masks_nothing_can_be_missed():
    with pytest.raises(Unmeasurable, match="no slice with a mask"):
        missed(on([dot(1, 1)], [EMPTY]))
