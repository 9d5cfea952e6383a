"""Distances between models, against loops, and exactly 0 from a model to itself."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from fedunlearn.evaluation.distance import cosine, l2, mean_kl
from fedunlearn.evaluation.outputs import SplitOutputs
from fedunlearn.evaluation.scored import Unmeasurable
from tests.evaluation.builders import split, splits
from tests.oracles import divergence as oracle

weights = st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=4)


@given(weights, weights)
def test_l2_and_cosine_against_loops(a, b):
    assert l2(torch.tensor(a), torch.tensor(b)) == pytest.approx(oracle.l2(a, b), rel=1e-12)
    assume(oracle.l2(a, [0] * 4) > 1e-3 and oracle.l2(b, [0] * 4) > 1e-3)
    assert cosine(torch.tensor(a), torch.tensor(b)) == pytest.approx(oracle.cosine_distance(a, b), abs=1e-12)


@given(weights)
def test_a_model_is_nowhere_but_where_it_is(a):
    vector = torch.tensor(a)
    assert l2(vector, vector) == 0
    assume(any(a))
    assert cosine(vector, vector) == 0


def test_cosine_resolves_small_angles_and_ignores_length():
    angle = 1e-9
    a, b = torch.tensor([1.0, 0.0]).double(), 7 * torch.tensor([math.cos(angle), math.sin(angle)]).double()
    assert cosine(a, b) == pytest.approx(angle**2 / 2, rel=1e-6)
    assert cosine(a, -a) == 2
    assert cosine(a, torch.tensor([0.0, 3.0])) == 1


def test_a_zero_vector_has_no_direction():
    with pytest.raises(Unmeasurable, match="no direction"):
        cosine(torch.zeros(3), torch.ones(3))


def test_vectors_of_two_models_are_refused():
    for a, b in [(torch.zeros(3), torch.zeros(4)), (torch.zeros(2, 2), torch.zeros(2, 2))]:
        with pytest.raises(ValueError, match="two flat vectors"):
            l2(a, b)


@given(splits(), st.data())
def test_kl_against_loops(reference, data):
    other = data.draw(splits(least=len(reference), most=len(reference)))
    model = SplitOutputs(other.logits, reference.labels)
    expected = oracle.mean_kl(reference.logits.tolist(), model.logits.tolist())
    assert mean_kl(model, reference) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert mean_kl(model, reference) >= 0
    assert mean_kl(reference, reference) == 0


def test_kl_is_taken_from_the_reference():
    """A model that says 50:50 of what retrain is sure of is log 2 away; the other way round it is farther."""
    sure, torn = split([[40.0, 0.0]], [0]), split([[0.0, 0.0]], [0])
    assert mean_kl(torn, sure) == pytest.approx(math.log(2))
    assert mean_kl(sure, torn) > 10


def test_a_class_the_reference_rules_out_adds_nothing():
    reference = split([[0.0, 0.0, -math.inf]], [0])
    assert mean_kl(split([[0.0, 0.0, -math.inf]], [0]), reference) == 0
    assert mean_kl(reference, split([[0.0, 0.0, 0.0]], [0])) == math.inf


def test_kl_needs_the_same_examples():
    with pytest.raises(ValueError, match="same examples"):
        mean_kl(split([[0.0, 1.0]], [0]), split([[0.0, 1.0]], [1]))
    with pytest.raises(Unmeasurable, match="no example"):
        mean_kl(split([], [], num_classes=2), split([], [], num_classes=2))
