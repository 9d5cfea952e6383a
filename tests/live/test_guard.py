"""What a forgetting client may do to the model at most."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.config import GuardConfig
from fedunlearn.federation.sums import BlockSum, Contribution, norm_of, pieces_of
from fedunlearn.live.guard import bounded, objection, usual_norm
from fedunlearn.models.state import ModelState
from tests.federation.contributions import bits

GUARD = GuardConfig(max_norm=4.0, max_drop=30.0)
OFF = GuardConfig(enabled=False, max_norm=4.0, max_drop=30.0)
SOUND = ModelState(torch.ones(3), {"mean": torch.zeros(2), "batches": torch.tensor(7)})
VECTORS = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20).map(
    lambda values: torch.tensor(values, dtype=torch.float32)
)


def of(*deltas):
    return [Contribution(k, 3, delta) for k, delta in enumerate(deltas)]


@given(VECTORS, st.floats(1e-3, 1e6))
def test_nothing_is_longer_than_the_bound_and_no_direction_changes(delta, usual):
    (kept,) = bounded(of(delta), usual, GUARD)
    norm = norm_of(delta)
    assert norm_of(kept.delta) <= GUARD.max_norm * usual * (1 + 1e-5)
    assert torch.allclose(kept.delta * norm, delta * norm_of(kept.delta), rtol=1e-4, atol=1e-30)
    if norm <= GUARD.max_norm * usual:
        assert bits(kept.delta) == bits(delta), "an ordinary update is not touched, not in its last bit"


@given(VECTORS)
def test_nothing_is_bounded_without_the_guard_or_without_anything_to_compare(delta):
    assert bits(bounded(of(delta), 1e-9, OFF)[0].delta) == bits(delta)
    assert bits(bounded(of(delta), None, GUARD)[0].delta) == bits(delta)


def test_each_is_bounded_by_itself():
    short, long = bounded(of(torch.tensor([3.0]), torch.tensor([-300.0])), 1.0, GUARD)
    assert (short.delta.item(), long.delta.item()) == (3.0, pytest.approx(-4.0))
    assert (long.client, long.num_examples) == (1, 3)


@given(VECTORS)
def test_the_norm_is_the_norm(vector):
    assert norm_of(vector) == pytest.approx(math.sqrt(math.fsum(x * x for x in vector.tolist())), rel=1e-12)


def test_a_sum_that_measures_on_the_way_finds_the_same_norm_to_the_last_bit():
    """Engines that never hold a single update must come to the same bound as those that do."""
    length = (1 << 18) + 1001
    start, trained = torch.randn(2, length, generator=torch.Generator().manual_seed(0))
    norm = norm_of(trained - start)
    measured = BlockSum().add_trained(
        0, 5, pieces_of(trained), pieces_of(start), {}, reset=False, measured=True
    )
    assert measured == norm


def test_the_usual_norm_is_the_median_and_stays_where_nobody_is_retained():
    assert usual_norm({1: 5.0, 2: 1.0, 7: 3.0}, None) == 3.0
    assert usual_norm({}, 3.0) == 3.0
    assert usual_norm({}, None) is None


@pytest.mark.parametrize(
    ("before", "after", "objects"),
    [(80.0, 50.1, False), (80.0, 49.9, True), (None, 0.0, False), (80.0, None, False), (80.0, 99.0, False)],
)
def test_a_drop_beyond_the_limit_is_objected_to(before, after, objects):
    assert bool(objection(SOUND, before, after, GUARD)) == objects
    assert objection(SOUND, before, after, OFF) == ""


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_and_buffers_that_are_not_finite_are_objected_to(bad):
    weights = ModelState(torch.tensor([1.0, bad]))
    buffers = ModelState(torch.ones(1), {"mean": torch.tensor([bad])})
    assert objection(weights, 80.0, 80.0, GUARD)
    assert objection(buffers, None, None, GUARD)


def test_the_reason_names_both_qualities_and_the_limit():
    why = objection(SOUND, 80.0, 12.5, GUARD)
    assert why == "validation quality fell from 80.0 to 12.5 %, guard.max-drop = 30 points"
