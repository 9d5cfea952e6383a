"""Batches laid side by side: exactly those of every model alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.training.batches import Batches
from tests.training.stacks import generator, generators


def alone(n, batch_size, epochs, draw):
    """A model's batches as the local loop makes them."""
    batches = []
    for _ in range(epochs):
        order = torch.randperm(n, generator=draw)
        batches += [order[at : at + batch_size].tolist() for at in range(0, n, batch_size)]
    return batches


def seen(batches, count, size):
    """Per model, in the order given, the batches that a stack shows it."""
    ranking = range(count) if batches.ranking is None else batches.ranking.tolist()
    found = {k: [] for k in ranking}
    for first, last in batches.windows(size):
        for rows, sizes, share, _ in batches.steps(first, last):
            assert len(rows) == len(sizes) <= last - first
            for at, (mine, n) in enumerate(zip(rows.tolist(), sizes.tolist(), strict=True)):
                found[ranking[first + at]].append(mine[:n])
                assert mine[n:] == [mine[n - 1]] * (len(mine) - n), "filled up with a row of its own"
                expected = [1 / n] * n + [0] * (len(mine) - n)
                assert [1 / len(mine)] * n == expected if share is None else share[at].tolist() == expected
    return [found[k] for k in range(count)]


@given(
    counts=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    batch_size=st.integers(1, 24),
    epochs=st.integers(1, 3),
    size=st.integers(1, 7),
    apart=st.booleans(),
    ordered=st.booleans(),
)
def test_every_model_sees_the_batches_it_would_see_alone(counts, batch_size, epochs, size, apart, ordered):
    first = [sum(counts[:k]) for k in range(len(counts))]
    rows = torch.randperm(1000, generator=generator(0))[: sum(counts)] if apart else None
    places = torch.arange(sum(counts)) if rows is None else rows
    batches = Batches(counts, batch_size, epochs, generators(len(counts)), rows, ordered=ordered)
    found = seen(batches, len(counts), size)
    for k, draw in enumerate(generators(len(counts))):
        expected = [
            places[first[k] + torch.tensor(batch)].tolist()
            for batch in alone(counts[k], batch_size, epochs, draw)
        ]
        if counts[k] <= batch_size and not ordered:  # a batch of everything: in whatever order
            found[k], expected = ([sorted(batch) for batch in each] for each in (found[k], expected))
        assert found[k] == expected


@given(
    counts=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    batch_size=st.integers(1, 24),
    epochs=st.integers(1, 3),
)
def test_places_count_what_each_model_sees_in_turn(counts, batch_size, epochs):
    batches = Batches(counts, batch_size, epochs, generators(len(counts)), ordered=True)
    ranking = range(len(counts)) if batches.ranking is None else batches.ranking.tolist()
    places = {k: [] for k in ranking}
    for _, sizes, _, where in batches.steps(0, len(counts)):
        for at, n in enumerate(sizes.tolist()):
            places[ranking[at]] += where[at, :n].tolist()
    in_turn = [place for k in range(len(counts)) for place in places[k]]
    assert in_turn == list(range(epochs * sum(counts)))


@given(counts=st.lists(st.integers(1, 50), min_size=1, max_size=9), size=st.integers(1, 12))
def test_windows_cut_the_stack_evenly(counts, size):
    windows = list(Batches(counts, 8, 1, generators(len(counts))).windows(size))
    lengths = [last - first for first, last in windows]
    assert [k for first, last in windows for k in range(first, last)] == list(range(len(counts)))
    assert max(lengths) <= size and max(lengths) - min(lengths) <= 1
    assert len(windows) == -(-len(counts) // size)


def test_those_with_most_rows_come_first_and_equals_keep_their_order():
    assert Batches([8, 17, 3, 24, 8], 8, 2, generators(5)).ranking.tolist() == [3, 1, 0, 4, 2]
    assert Batches([24, 17, 16, 8, 8], 8, 2, generators(5)).ranking is None


def test_one_generator_seeded_anew_serves_all():
    draw = torch.Generator()
    anew = (draw.manual_seed(100 + k) for k in range(3))
    shared, own = Batches([20, 9, 30], 8, 2, anew), Batches([20, 9, 30], 8, 2, generators(3))
    assert seen(shared, 3, 3) == seen(own, 3, 3)


def test_nothing_is_drawn_where_the_order_does_not_matter():
    def never():
        raise AssertionError("drawn")
        yield

    assert len(list(Batches([3, 8, 8], 8, 2, never()).steps(0, 3))) == 2


@pytest.mark.parametrize("count", [2, 4])
def test_a_generator_for_every_model(count):
    with pytest.raises(ValueError, match="argument 2"):
        Batches([9, 9, 9], 8, 1, generators(count))


def test_a_model_without_rows_is_named():
    with pytest.raises(ValueError, match="model 1 of the stack has no rows"):
        Batches([9, 0, 9], 8, 1, generators(3))


def test_rows_that_just_fill_a_batch_stay_as_they_lie_beside_longer_ones():
    long, full = seen(Batches([20, 8], 8, 2, generators(2)), 2, 2)
    assert full == [list(range(20, 28))] * 2
    assert sorted(row for batch in long[:3] for row in batch) == list(range(20))
    assert long[0] != list(range(8))
