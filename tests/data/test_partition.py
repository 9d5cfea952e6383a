"""A partition: what every client holds, in two arrays, behaving as a sequence of arrays."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.data import Partition

owners = st.lists(st.integers(-1, 6), max_size=40)


def of(owners, num_clients=7):
    return Partition.of_owners(np.array(owners, dtype=np.int64), num_clients)


@given(owners)
def test_every_client_holds_the_rows_that_are_its_own(owners):
    partition = of(owners)
    expected = [[row for row, owner in enumerate(owners) if owner == client] for client in range(7)]
    assert len(partition) == 7
    assert [rows.tolist() for rows in partition] == expected
    assert [partition[k].tolist() for k in range(7)] == expected
    assert partition.sizes.tolist() == list(map(len, expected))
    assert partition.owners.tolist() == [k for k, rows in enumerate(expected) for _ in rows]
    assert partition.rows.dtype == partition.offsets.dtype == partition[0].dtype == np.int64


def test_a_client_s_rows_are_a_view():
    partition = of([0, 1, 1, 2, 0])
    for rows in (partition[1], partition[-6], *partition[1:2]):
        assert np.shares_memory(rows, partition.rows)
        assert rows.tolist() == [1, 2]


def test_numbers_beyond_the_clients_are_refused():
    partition = of([0, 1])
    for number in (7, -8):
        with pytest.raises(IndexError):
            partition[number]
    assert [rows.tolist() for rows in partition[5:99]] == [[], []]


@given(owners, owners)
def test_equal_are_those_that_deal_alike(one, other):
    assert of(one) == of(one)
    mine, its = ([rows.tolist() for rows in of(owners)] for owners in (one, other))
    assert (of(one) == of(other)) == (mine == its)
    assert of(one) != mine


def test_a_row_more_or_a_client_more_is_another_partition():
    assert of([0, 1, 1]) != of([0, 1, 1, -1, 1])
    assert of([0, 1, 1]) != of([0, 1, 1], num_clients=8)


def test_it_travels_as_its_two_arrays():
    partition = of(np.arange(20_000) % 10_000, num_clients=10_000)
    content = pickle.dumps(partition)
    assert pickle.loads(content) == partition
    assert len(content) < 8 * (20_000 + 10_001) + 1000
