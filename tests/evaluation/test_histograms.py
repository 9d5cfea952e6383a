"""Counts and histograms: what they keep of a model's outputs, and what is read from them."""

import math
from bisect import bisect_right
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.evaluation import roc
from fedunlearn.evaluation.accuracy import mean_loss, quality
from fedunlearn.evaluation.histograms import (
    BINS,
    FEWEST,
    Tally,
    Withheld,
    forget_measures,
    membership_auc,
    tally_of,
    total,
)
from fedunlearn.evaluation.scored import Unmeasurable
from tests.evaluation import masks
from tests.evaluation.builders import lists, split, splits, two_class

EMPTY = (0,) * BINS


def histogram(**counts):
    """A tally with these counts in these bins: ``histogram(b0=3, b19=2)``."""
    bins = list(EMPTY)
    for name, count in counts.items():
        bins[int(name[1:])] = count
    return Tally(sum(bins), 0.0, 0.0, tuple(bins))


@st.composite
def tallies(draw, least=0):
    """Random tallies, with sums that do not add up exactly in floating point."""
    bins = tuple(draw(st.lists(st.integers(0, 2), min_size=BINS, max_size=BINS)))
    if sum(bins) < least:
        bins = (least, *bins[1:])
    share = st.floats(0, 1, allow_nan=False)
    return Tally(sum(bins), 100 * sum(bins) * draw(share), 7 * draw(share), bins)


# -- what is kept -----------------------------------------------------------------------------------------


@given(splits(least=FEWEST, most=20))
def test_a_tally_counts_and_sums_what_a_plain_loop_does(outputs):
    found = tally_of(outputs)
    edges = [Fraction(i, BINS) for i in range(1, BINS)]
    right, loss, bins = 0, 0.0, list(EMPTY)
    for logits, label in zip(*lists(outputs), strict=True):
        total_ = sum(math.exp(z) for z in logits)
        probability = math.exp(logits[label]) / total_
        right += logits.index(max(logits)) == label
        loss -= math.log(probability)
        bins[bisect_right(edges, probability)] += 1
    assert found.num_examples == len(outputs)
    assert found.quality_sum == 100 * right
    assert found.loss_sum == pytest.approx(loss, rel=1e-9)
    near_an_edge = any(abs(c * BINS - round(c * BINS)) < 1e-9 for c in outputs.confidences)
    assert near_an_edge or list(found.confidences) == bins


@pytest.mark.parametrize(("margin", "place"), [(-40.0, 0), (0.0, 10), (40.0, 19)])
def test_bins_at_the_ends_and_at_an_edge(margin, place):
    """Confidences 0, exactly one half, and 1."""
    found = tally_of(two_class([margin] * 6, [0] * 6))
    assert found.confidences[place] == 6


def test_quality_and_loss_are_those_of_the_outputs():
    outputs = two_class(np.linspace(-3, 5, 31), [0, 1] * 15 + [0])
    found = tally_of(outputs)
    assert found.quality == quality(outputs)
    assert found.loss == pytest.approx(mean_loss(outputs), rel=1e-12)
    assert 0 < found.quality < 100


def test_masks_give_dice_and_mean_confidence():
    images, truth = masks.blobs(8, 12, seed=1)
    logits = torch.stack([-images[:, 0], images[:, 0]], dim=1).double()
    outputs = masks.outputs(logits, truth)
    found = tally_of(outputs)
    assert found.quality == pytest.approx(outputs.qualities.mean(), rel=1e-12)
    assert found.loss == pytest.approx(outputs.losses.mean(), rel=1e-12)
    assert sum(found.confidences) == 8
    (mean,) = {int(c * BINS) for c in outputs.take([3]).confidences}
    assert found.confidences[mean] >= 1


def test_fewer_than_five_examples_tell_nothing():
    four, five = two_class([1.0] * 4, [0] * 4), two_class([1.0] * 5, [0] * 5)
    assert tally_of(four) == Withheld("fewer than 5 examples")
    assert tally_of(five).num_examples == 5


def test_a_model_that_has_diverged_tells_why():
    assert tally_of(split([[math.nan, 0.0]] * 6, [0] * 6)) == Withheld("the model's outputs are not finite")


# -- adding up --------------------------------------------------------------------------------------------


@given(st.lists(tallies(), max_size=6), st.randoms(use_true_random=False))
def test_a_total_is_the_same_to_the_last_bit_in_any_order(parts, order):
    shuffled = list(parts)
    order.shuffle(shuffled)
    assert total(shuffled) == total(parts)


@given(splits(least=2 * FEWEST, most=14), st.data())
def test_the_total_of_the_parts_is_the_tally_of_the_whole(outputs, data):
    cut = data.draw(st.integers(FEWEST, len(outputs) - FEWEST))
    rows = np.arange(len(outputs))
    together = total([tally_of(outputs.take(rows[:cut])), tally_of(outputs.take(rows[cut:]))])
    whole = tally_of(outputs)
    assert (together.num_examples, together.confidences) == (whole.num_examples, whole.confidences)
    assert together.quality_sum == whole.quality_sum
    assert together.loss_sum == pytest.approx(whole.loss_sum, rel=1e-12)


def test_a_total_of_nobody_is_empty_and_has_no_quality():
    nobody = total([])
    assert nobody == Tally(0, 0.0, 0.0, EMPTY)
    with pytest.raises(Unmeasurable, match="no example"):
        _ = nobody.quality
    with pytest.raises(Unmeasurable, match="no example"):
        _ = nobody.loss


# -- membership -------------------------------------------------------------------------------------------


def scores(told):
    """The scores that a histogram stands for: each example's is the number of its bin."""
    return np.repeat(np.arange(BINS, dtype=float), told.confidences)


@given(tallies(least=1), tallies(least=1))
def test_the_auc_is_that_of_scores_rounded_to_their_bins(forget, held_out):
    pairs = [(f > h) + 0.5 * (f == h) for f in scores(forget) for h in scores(held_out)]
    found = membership_auc(forget, held_out)
    assert found == pytest.approx(100 * sum(pairs) / len(pairs), rel=1e-12)
    assert found == pytest.approx(100 * roc.auc(scores(forget), scores(held_out)), rel=1e-12)
    assert found + membership_auc(held_out, forget) == pytest.approx(100, rel=1e-12)


def test_the_auc_of_what_is_clear():
    low, high = histogram(b0=7), histogram(b19=5)
    assert membership_auc(high, low) == 100
    assert membership_auc(low, high) == 0
    assert membership_auc(low, low) == 50
    assert membership_auc(total([low, high]), histogram(b10=1)) == pytest.approx(100 * 5 / 12)


def test_the_auc_needs_both():
    for forget, held_out in ((histogram(), histogram(b1=1)), (histogram(b1=1), histogram())):
        with pytest.raises(Unmeasurable, match="no forgotten or no unseen"):
            membership_auc(forget, held_out)


def test_the_measures_of_a_forgotten_client():
    told = Tally(10, 700.0, 5.0, histogram(b19=10).confidences)
    held_out = histogram(b0=5, b19=5)
    found = forget_measures("classification", told, held_out)
    assert dict(found) == {"forget_accuracy": 70.0, "forget_loss": 0.5, "mia_auc_binned": 75.0}
    assert found.reason is None
    assert "forget_dice" in forget_measures("segmentation", told, held_out)


def test_what_a_client_does_not_tell_is_null_with_its_reason():
    found = forget_measures("classification", Withheld("its node is gone"), histogram(b0=5))
    assert dict(found) == {"forget_accuracy": None, "forget_loss": None, "mia_auc_binned": None}
    assert set(found.reasons.values()) == {"its node is gone"}


def test_without_unseen_data_only_the_attack_is_null():
    found = forget_measures(
        "classification", Tally(5, 500.0, 1.0, histogram(b3=5).confidences), Withheld("none")
    )
    assert (found["forget_accuracy"], found["forget_loss"]) == (100.0, 0.2)
    assert found["mia_auc_binned"] is None
    assert found.reasons == {"mia_auc_binned": "none"}


# -- numbers from elsewhere -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_examples": 6}, "20 bins and 5 examples: must have 20 bins and 6"),
        ({"num_examples": 5.0}, "whole numbers"),
        ({"num_examples": True}, "whole numbers"),
        ({"confidences": (6, -1, *(0,) * 18)}, "whole numbers"),
        ({"confidences": (5, *(0,) * 20)}, "21 bins"),
        ({"confidences": (5,)}, "1 bins"),
        ({"quality_sum": 500.1}, "sum of qualities 500.1"),
        ({"quality_sum": -0.1}, "sum of qualities"),
        ({"quality_sum": math.nan}, "sum of qualities"),
        ({"loss_sum": math.inf}, "sum of losses"),
        ({"loss_sum": math.nan}, "sum of losses"),
        ({"loss_sum": -1e-9}, "sum of losses"),
    ],
)
def test_numbers_of_no_set_of_examples_are_refused(change, message):
    sound = {"num_examples": 5, "quality_sum": 500.0, "loss_sum": 1.0, "confidences": (5, *(0,) * 19)}
    Tally(**sound)
    with pytest.raises(ValueError, match=message):
        Tally(**{**sound, **change})
