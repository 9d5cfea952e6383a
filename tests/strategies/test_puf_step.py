"""The arithmetic of PUF: the identities that any implementation of the paper's two formulas has to satisfy."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.federation.sums import BlockSum, Contribution
from fedunlearn.strategies.puf import puf_step
from tests.federation.contributions import (
    bits,
    contributions,
    exact_sum,
    num_examples,
    vectors,
)

DOUBLE = torch.float64
SCALES = st.floats(0, 120)
MODES = st.sampled_from(["special", "regular"])


def step(w, retained, forgetting, mode, scale, retain_rate=1.0):
    return puf_step(w, BlockSum.of(retained), forgetting, mode=mode, scale=scale, retain_rate=retain_rate)


def close(a, b, *, beside=1.0):
    """Equal up to rounding, next to numbers of the size ``beside``."""
    return torch.allclose(a.double(), b.double(), rtol=1e-9, atol=1e-10 * (1 + beside))


@given(vectors(DOUBLE), contributions(DOUBLE), contributions(DOUBLE, least=1), SCALES)
def test_special_is_the_paper_s_formula_whoever_is_retained(w, retained, forgetting, scale):
    expected = w - scale * exact_sum(forgetting) / num_examples(forgetting)
    assert close(step(w, retained, forgetting, "special", scale), expected, beside=1e3 * scale)


RATES = st.sampled_from([1.0, 0.0]) | st.floats(0, 10)


@given(vectors(DOUBLE), contributions(DOUBLE), contributions(DOUBLE, least=1), SCALES, RATES)
def test_regular_is_the_paper_s_formula(w, retained, forgetting, scale, rate):
    # The same client may be in both: retained with one part of its data, forgotten with another.
    total = num_examples(retained) + num_examples(forgetting)
    expected = w + (rate * exact_sum(retained) - scale * exact_sum(forgetting)) / total
    found = step(w, retained, forgetting, "regular", scale, rate)
    assert close(found, expected, beside=1e3 * (1 + rate + scale))


@given(vectors(), contributions(), contributions(least=1), MODES, SCALES)
def test_a_retain_rate_of_one_is_none_to_the_last_bit(w, retained, forgetting, mode, scale):
    before = puf_step(w, BlockSum.of(retained), forgetting, mode=mode, scale=scale)
    assert bits(step(w, retained, forgetting, mode, scale, 1.0)) == bits(before)


@given(vectors(DOUBLE), contributions(DOUBLE), contributions(DOUBLE, least=1), st.floats(0, 10))
def test_regular_without_the_retained_sum_is_special_of_the_same_coefficient(w, retained, forgetting, scale):
    forgotten = num_examples(forgetting)
    factor = scale * (forgotten + num_examples(retained)) / forgotten
    special = step(w, [], forgetting, "special", scale)
    assert close(step(w, retained, forgetting, "regular", factor, 0.0), special, beside=1e3 * (1 + scale))


@pytest.mark.slow
@given(vectors(DOUBLE), contributions(DOUBLE), contributions(DOUBLE, least=1), SCALES, RATES)
def test_special_knows_no_retain_rate(w, retained, forgetting, scale, rate):
    assert bits(step(w, retained, forgetting, "special", scale, rate)) == bits(
        step(w, [], forgetting, "special", scale)
    )


@given(vectors(), contributions(least=1))
def test_special_with_scale_zero_is_the_identity(w, forgetting):
    assert torch.equal(step(w, [], forgetting, "special", 0.0), w)


@given(vectors(DOUBLE), contributions(DOUBLE, least=1), contributions(DOUBLE, least=1))
def test_regular_with_scale_zero_is_fedavg_damped_by_the_retained_share(w, retained, forgetting):
    share = num_examples(retained) / (num_examples(retained) + num_examples(forgetting))
    averaged = BlockSum.of(retained).step_from(w)
    assert close(step(w, retained, forgetting, "regular", 0.0), w + share * (averaged - w), beside=1e3)


@given(
    contributions(DOUBLE, least=1, deltas=st.just(torch.ones(3, dtype=DOUBLE))),
    contributions(DOUBLE, least=1),
)
def test_regular_with_scale_zero_is_not_fedavg_without_the_forgotten(retained, forgetting):
    w = torch.zeros(3, dtype=DOUBLE)
    assert torch.equal(BlockSum.of(retained).step_from(w), torch.ones(3, dtype=DOUBLE))
    assert (step(w, retained, forgetting, "regular", 0.0) < 1).all()


@given(
    vectors(DOUBLE),
    contributions(DOUBLE, deltas=st.just(torch.zeros(3, dtype=DOUBLE))),
    contributions(DOUBLE, least=1),
    st.floats(0, 10),
)
def test_regular_equals_special_of_the_same_effective_coefficient(w, retained, forgetting, scale):
    forgotten = num_examples(forgetting)
    total = forgotten + num_examples(retained)
    regular = step(w, retained, forgetting, "regular", scale * total / forgotten)
    assert close(regular, step(w, [], forgetting, "special", scale), beside=1e3 * scale)


@given(vectors(), contributions(), contributions(least=1), MODES, SCALES, st.randoms(use_true_random=False))
def test_no_order_changes_a_bit(w, retained, forgetting, mode, scale, random):
    once = step(w, retained, forgetting, mode, scale)
    retained, forgetting = list(retained), list(forgetting)
    random.shuffle(retained)
    random.shuffle(forgetting)
    assert bits(step(w, retained, forgetting, mode, scale)) == bits(once)


def test_the_order_would_matter_without_the_sorting():
    """The numbers above do round: the property is not true of any sum whatever."""
    large, one, minus = (
        Contribution(k, 1, torch.tensor([x])) for k, x in enumerate((2.0**24, 1.0, -(2.0**24)))
    )
    assert large.delta + one.delta + minus.delta != large.delta + minus.delta + one.delta
    w = torch.zeros(1)
    a, b = (step(w, [], order, "special", 1.0) for order in ([large, one, minus], [large, minus, one]))
    assert bits(a) == bits(b)


@given(vectors(), contributions(), contributions(), MODES, SCALES)
def test_nothing_that_is_handed_in_is_changed(w, retained, forgetting, mode, scale):
    before = [bits(t) for t in (w, *(c.delta for c in retained + forgetting))]
    summed = BlockSum.of(retained)
    once = puf_step(w, summed, forgetting, mode=mode, scale=scale)
    again = puf_step(w, summed, forgetting, mode=mode, scale=scale)
    assert bits(once) == bits(again), "the sum can be read twice"
    once.fill_(float("nan"))
    assert [bits(t) for t in (w, *(c.delta for c in retained + forgetting))] == before


@given(vectors(DOUBLE), contributions(DOUBLE, least=1), contributions(DOUBLE, least=1), st.floats(0.1, 50))
def test_forgetting_undoes_what_training_did(w, retained, forgetting, scale):
    """The step away from w is linear in the scale: twice the scale is one more negated pseudo-gradient."""
    for mode in ("special", "regular"):
        none, once, twice = (step(w, retained, forgetting, mode, s) for s in (0.0, scale, 2 * scale))
        assert close(twice - once, once - none, beside=1e3 * scale)


@given(vectors(), MODES, SCALES)
def test_with_nobody_at_all_the_weights_stay(w, mode, scale):
    assert torch.equal(step(w, [], [], mode, scale), w)


@given(vectors(), contributions(least=1), SCALES)
def test_regular_without_anybody_to_forget_is_fedavg(w, retained, scale):
    regular = step(w, retained, [], "regular", scale)
    assert torch.allclose(regular, BlockSum.of(retained).step_from(w), rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("mode", ["special", "regular"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_the_models(mode, dtype):
    w = torch.zeros(3, dtype=dtype)
    one = Contribution(0, 3, torch.ones(3, dtype=dtype))
    assert step(w, [one], [Contribution(1, 2, one.delta)], mode, 2.0).dtype == dtype


@given(vectors(DOUBLE), contributions(DOUBLE, least=1, most=1), SCALES)
def test_one_request_of_special_is_w_minus_scale_delta(w, forgetting, scale):
    expected = w - scale * forgetting[0].delta
    assert close(step(w, [], forgetting, "special", scale), expected, beside=1e3 * scale)


@given(vectors(DOUBLE), contributions(DOUBLE, least=2), SCALES)
def test_special_forgets_a_group_as_the_mean_of_the_group(w, forgetting, scale):
    """Requests of one round are one step with one shared scale, weighted by examples."""
    total = num_examples(forgetting)
    expected = w.clone()
    for c in forgetting:
        expected -= scale * (c.num_examples / total) * c.delta
    assert close(step(w, [], forgetting, "special", scale), expected, beside=1e3 * scale)
