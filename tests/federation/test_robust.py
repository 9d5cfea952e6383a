"""Robust rules: what they are by definition, beside Flower's own, and that a hostile minority cannot bend them."""

from itertools import combinations

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from flwr.serverapp.strategy.multikrum import select_multikrum
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.federation.robust import RULES, Aggregation, distances, most_central, trimmed_mean
from fedunlearn.federation.sums import PIECE, BlockSum, Contribution
from fedunlearn.strategies.puf import puf_step
from tests.federation.contributions import bits

SIZE = 7
ROUNDS = st.integers(3, 12).flatmap(
    lambda n: st.lists(
        st.lists(st.floats(-100, 100, width=32), min_size=SIZE, max_size=SIZE), min_size=n, max_size=n
    )
)


def of(vectors, examples=None):
    """Return the contributions of clients 0, 1, …, with a buffer and a counter each."""
    return [
        Contribution(
            k,
            10 if examples is None else examples[k],
            vector,
            {"mean": vector[:2] * 2, "batches": torch.tensor(k)},
        )
        for k, vector in enumerate(torch.tensor(vectors) if isinstance(vectors, list) else vectors)
    ]


@given(ROUNDS, st.floats(0, 0.49))
def test_the_trimmed_mean_is_flowers(vectors, share):
    cut = int(share * len(vectors))
    flowers = trim_mean(np.array(vectors, dtype=np.float32), cut / len(vectors) + 1e-9)
    ours = trimmed_mean(list(torch.tensor(vectors)), cut)
    assert np.allclose(ours.numpy(), flowers, rtol=1e-5, atol=1e-4)


@given(ROUNDS, st.randoms())
def test_the_median_is_numpys_whatever_the_order(vectors, random):
    updates = of(vectors)
    random.shuffle(updates)
    found = Aggregation("median").sum_of(updates).mean()
    assert np.allclose(found.numpy(), np.median(np.array(vectors), axis=0), rtol=1e-5, atol=1e-4)


def test_krum_keeps_whom_flower_keeps():
    generator = torch.Generator().manual_seed(0)
    for n, hostile in ((5, 1), (7, 2), (10, 2), (10, 3)):
        vectors = list(torch.randn(n, 50, generator=generator))
        contents = [RecordDict({"arrays": ArrayRecord({"w": Array(v.numpy())}), "metrics": MetricRecord({"at": k})})
                    for k, v in enumerate(vectors)]  # fmt: skip
        for keep in (1, n - hostile):
            flowers = select_multikrum(contents, hostile, keep)
            assert most_central(vectors, hostile, keep) == sorted(int(c["metrics"]["at"]) for c in flowers)


def test_distances_of_vectors_that_are_near_each_other_and_far_from_zero():
    """Flower's formula, by norms and products, loses all digits here."""
    base = torch.full((1000,), 1e3)
    near = base.clone()
    near[0] += 0.25
    assert distances([base, near])[0, 1].item() == pytest.approx(0.0625, rel=1e-12)


def test_pieces_make_no_difference():
    vectors = list(torch.randn(5, PIECE + 1001, generator=torch.Generator().manual_seed(1)))
    whole = torch.stack(vectors).sort(dim=0).values[1:4].mean(dim=0)
    assert bits(trimmed_mean(vectors, 1)) == bits(whole)
    direct = (vectors[0].double() - vectors[3].double()).square().sum().item()
    assert distances(vectors)[0, 3].item() == pytest.approx(direct, rel=1e-12)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("evil", [1e30, -1e4, 50.0])
def test_two_of_ten_cannot_take_the_step_out_of_what_the_honest_say(rule, evil):
    honest = torch.randn(8, 40, generator=torch.Generator().manual_seed(2))
    hostile = torch.full((2, 40), evil)
    updates = of(torch.cat([hostile, honest]), [2**31 - 1] * 2 + [10] * 8)
    found = Aggregation(rule, 0.2).sum_of(updates)
    assert (found.mean() >= honest.amin(dim=0) - 1e-5).all() and (
        found.mean() <= honest.amax(dim=0) + 1e-5
    ).all()
    buffer = found.mean_buffers()["mean"]
    assert (buffer.abs() <= 2 * honest.abs().amax()).all()
    assert bits(Aggregation("mean").sum_of(updates).mean()) == bits(BlockSum.of(updates).mean())


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_of_few_answers_the_rules_make_something_of_them(rule, n):
    updates = of(torch.randn(n, 5, generator=torch.Generator().manual_seed(n)))
    found = Aggregation(rule, 0.4).sum_of(updates)
    assert torch.isfinite(found.mean()).all() and found.num_examples == 10 * n
    assert not Aggregation(rule).sum_of([])


def test_of_answers_that_agree_every_rule_is_the_mean():
    updates = of(torch.ones(6, 4))
    for rule in RULES:
        assert Aggregation(rule).sum_of(updates).mean().tolist() == pytest.approx([1.0] * 4)


def test_counters_take_the_middle_value():
    found = Aggregation("trimmed-mean").sum_of(of(torch.zeros(4, 3))).mean_buffers()
    assert found["batches"].item() == 1 and found["batches"].dtype == torch.int64


def test_the_median_of_an_even_number_is_between_the_two_in_the_middle():
    for a, b in combinations([0.0, 1.0, 4.0, 9.0], 2):
        low, high = sorted((a, b))
        assert trimmed_mean([torch.tensor([x]) for x in (a, b, -50.0, 50.0)], 1).item() == (low + high) / 2


def test_pufs_step_weighs_what_is_forgotten_as_beside_the_mean():
    """Regular mode divides by the examples of all who answered, also where a rule kept only one of them."""
    updates = of(torch.ones(5, 3))
    forgotten = [Contribution(9, 30, torch.full((3,), 0.5))]
    w = torch.zeros(3)
    mean = puf_step(w, BlockSum.of(updates), forgotten, mode="regular", scale=2.0)
    for rule in RULES:
        robust = puf_step(w, Aggregation(rule).sum_of(updates), forgotten, mode="regular", scale=2.0)
        assert robust.tolist() == pytest.approx(mean.tolist())
