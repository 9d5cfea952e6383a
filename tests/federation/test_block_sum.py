"""Sums that never reorder: BlockSum and OrderedSum."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.federation.sums import BlockSum, Contribution, OrderedSum
from tests.federation.contributions import SIZE, bits, contributions, exact_sum, num_examples

LIKE = torch.zeros(SIZE)


def of_ones(*clients, large=0):
    """Contributions of 1.0 each, but 2**24 of client ``large``: in float32, 2**24 + 1 rounds back to 2**24."""
    return [Contribution(k, 1, torch.tensor([2.0**24 if k == large else 1.0])) for k in clients]


def in_blocks(answers, size=SIZE):
    """Σ n_k Δ_k as the contract puts it: blocks of 64 client numbers, each in client order, then in order."""
    subtotals = []
    for first in range(0, 256, 64):
        subtotal = None
        for c in sorted(answers, key=lambda c: c.client):
            if first <= c.client < first + 64:
                weighted = c.delta * c.num_examples
                # torch's fused n·Δ + s rounds once where it is available.
                subtotal = weighted if subtotal is None else subtotal.add(c.delta, alpha=c.num_examples)
        if subtotal is not None:
            subtotals.append(subtotal)
    total = None
    for subtotal in subtotals:
        total = subtotal if total is None else total + subtotal
    return torch.zeros(size) if total is None else total


@given(contributions(dtype=torch.float64))
def test_it_is_the_sum(answers):
    total = BlockSum.of(answers)
    size = 5000 * 1e3 * (1 + len(answers))
    assert torch.allclose(
        total.weighted_sum(like=LIKE.double()), exact_sum(answers), rtol=0, atol=1e-14 * size
    )
    assert total.num_examples == num_examples(answers)
    assert bool(total) == bool(answers)


@given(contributions(), st.randoms(use_true_random=False))
def test_the_order_of_the_contributions_changes_no_bit(answers, random):
    shuffled = list(answers)
    random.shuffle(shuffled)
    assert bits(BlockSum.of(shuffled).weighted_sum(LIKE)) == bits(BlockSum.of(answers).weighted_sum(LIKE))


@given(contributions())
def test_it_adds_in_blocks_of_64_client_numbers(answers):
    assert bits(BlockSum.of(answers).weighted_sum(LIKE)) == bits(in_blocks(answers))


@pytest.mark.parametrize(
    ("clients", "total"),
    [
        ((0, 62, 63), 2.0**24),  # one block: either 1 is lost
        ((0, 64, 65), 2.0**24 + 2),  # the 1s of the second block are added to each other first
        ((0, 63, 64), 2.0**24),
        ((0, 127, 128), 2.0**24),
        ((0, 126, 127), 2.0**24 + 2),
    ],
)
def test_the_blocks_begin_at_multiples_of_64(clients, total):
    assert BlockSum.of(of_ones(*clients)).weighted_sum(torch.zeros(1)).item() == total


@given(contributions(), st.data())
def test_workers_that_hold_whole_blocks_merge_to_the_same_bits(answers, data):
    worker_of_block = {b: data.draw(st.integers(0, 2)) for b in {c.client // 64 for c in answers}}
    parts = [BlockSum.of([c for c in answers if worker_of_block[c.client // 64] == w]) for w in range(3)]
    total = BlockSum()
    for part in data.draw(st.permutations(parts)):
        total.merge(part)
    whole = BlockSum.of(answers)
    assert bits(total.weighted_sum(LIKE)) == bits(whole.weighted_sum(LIKE))
    assert total.num_examples == whole.num_examples


def test_merging_parts_of_one_block_is_refused():
    total = BlockSum.of(of_ones(0, 64))
    with pytest.raises(ValueError, match=r"blocks \[1\] are in both"):
        total.merge(BlockSum.of(of_ones(65)))
    assert total.num_examples == 2


@pytest.mark.parametrize("clients", [(3, 3), (3, 2), (64, 3, 2)])
def test_adding_out_of_order_within_a_block_is_refused(clients):
    total = BlockSum()
    with pytest.raises(ValueError, match="add in client order"):
        for c in of_ones(*clients):
            total.add(c)


def test_one_client_counts_once():
    with pytest.raises(ValueError, match="client 3"):
        BlockSum.of(of_ones(3, 70, 3))


def test_the_empty_sum_is_zeros_like_the_model():
    like = torch.ones(4, dtype=torch.float64)
    assert not BlockSum()
    assert BlockSum().num_examples == 0
    assert BlockSum().mean_buffers() == {}
    assert torch.equal(BlockSum().weighted_sum(like), torch.zeros(4, dtype=torch.float64))
    assert torch.equal(like, torch.ones(4, dtype=torch.float64))


@given(contributions(least=1))
def test_neither_reading_nor_summing_changes_what_was_put_in(answers):
    before = [bits(c.delta) for c in answers]
    total = BlockSum.of(answers)
    first = total.weighted_sum(LIKE)
    kept = bits(first)
    first.fill_(float("nan"))  # whoever asked may do with it what they like
    assert bits(total.weighted_sum(LIKE)) == kept
    assert [bits(c.delta) for c in answers] == before


# -- buffers ---------------------------------------------------------------------------------------------


def with_buffers(client, n, mean, batches):
    buffers = {"mean": torch.tensor([mean]), "batches": torch.tensor(batches)}
    return Contribution(client, n, torch.zeros(1), buffers)


def test_buffers_are_averaged_by_examples_and_counters_take_the_maximum():
    answers = [with_buffers(130, 3, 1.0, 7), with_buffers(0, 1, 5.0, 9), with_buffers(1, 4, -2.0, 2)]
    means = BlockSum.of(answers).mean_buffers()
    assert means["mean"].item() == (3 * 1.0 + 1 * 5.0 + 4 * -2.0) / 8
    assert means["batches"].item() == 9
    assert means["batches"].dtype == torch.int64


numbers = st.floats(-1e3, 1e3, width=32)


@given(
    st.lists(st.tuples(st.integers(1, 100), numbers, st.integers(0, 1000)), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_the_buffers_order_changes_no_bit_and_nothing_is_changed(rows, random):
    answers = [with_buffers(40 * k, *row) for k, row in enumerate(rows)]
    before = [bits(c.buffers["mean"]) for c in answers]
    shuffled = list(answers)
    random.shuffle(shuffled)
    total = BlockSum.of(shuffled)
    one, other, again = BlockSum.of(answers).mean_buffers(), total.mean_buffers(), total.mean_buffers()
    for name in ("mean", "batches"):
        assert bits(one[name]) == bits(other[name]) == bits(again[name])
    assert one["batches"].item() == max(batches for _, _, batches in rows)
    assert [bits(c.buffers["mean"]) for c in answers] == before
    assert [c.buffers["batches"].item() for c in answers] == [batches for _, _, batches in rows]


# -- answers in the order of arrival ---------------------------------------------------------------------


@given(contributions(), st.data())
def test_arrival_order_and_failures_change_no_bit(answers, data):
    failed = data.draw(st.sets(st.sampled_from(answers).map(lambda c: c.client))) if answers else set()
    ordered = OrderedSum(data.draw(st.permutations([c.client for c in answers])))
    for c in data.draw(st.permutations(answers)):
        ordered.put(c.client, None if c.client in failed else c)
    answered = BlockSum.of(c for c in answers if c.client not in failed)
    assert bits(ordered.sum.weighted_sum(LIKE)) == bits(answered.weighted_sum(LIKE))
    assert ordered.sum.num_examples == answered.num_examples


def test_an_answer_waits_for_smaller_numbers_only():
    ordered = OrderedSum([5, 1, 3, 9])
    one, three, five, nine = of_ones(1, 3, 5, 9)
    seen = []
    for client, answer in ((1, one), (5, five), (3, None), (9, nine)):
        ordered.put(client, answer)
        seen.append(ordered.sum.num_examples)
    assert three.client == 3
    assert seen == [1, 1, 2, 3]
