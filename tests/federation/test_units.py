"""Cutting rounds: every client once, whole blocks where sums are made, longest first where memory allows."""

from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.federation.sums import BLOCK
from fedunlearn.federation.units import OVERTAKING_BYTES, in_placing_order, units_of
from fedunlearn.federation.worker import Unit
from tests.federation.scripted_routine import round_of

CLIENTS = st.sets(st.integers(0, 3000), max_size=60).map(sorted)


@given(CLIENTS, st.sets(st.integers(0, 3000), max_size=3).map(sorted), st.integers(1, 9), st.integers(1, 70))
def test_every_client_is_in_one_unit_of_its_kind(train, forget, workers, batch_clients):
    units = units_of(round_of(train, forget=forget), workers, batch_clients)
    assert [k for u in units if u.kind == "train" for k in u.clients] == train
    assert [u.clients for u in units if u.kind == "train.forget"] == [(k,) for k in forget]
    assert not any(u.summed for u in units if u.kind == "train.forget")


@given(CLIENTS, st.integers(1, 9), st.integers(1, 70))
def test_what_is_summed_is_whole_blocks(train, workers, batch_clients):
    units = units_of(round_of(train), workers, batch_clients)
    unit_of = {k: i for i, u in enumerate(units) for k in u.clients if u.summed}
    for block in {k // BLOCK for k in unit_of}:
        assert len({unit_of.get(k) for k in train if k // BLOCK == block}) == 1


def test_few_clients_are_shared_out_among_all_workers():
    units = units_of(round_of(range(10)), workers=2)
    assert len(units) == 10
    assert not any(u.summed for u in units)
    assert len(units_of(round_of(range(100)), workers=2)) >= 8


def test_many_blocks_are_summed_where_they_are_trained():
    units = units_of(round_of(range(8 * BLOCK)), workers=2)
    assert [len(u.clients) for u in units] == [BLOCK] * 8
    assert all(u.summed for u in units)


def test_a_stack_is_filled_from_as_many_blocks_as_it_takes():
    sparse = range(0, 100 * BLOCK, BLOCK)
    assert [len(u.clients) for u in units_of(round_of(sparse), 1, 40)] == [40, 40, 20]


def test_updates_that_are_wanted_singly_are_never_summed():
    units = units_of(round_of(range(8 * BLOCK), individually=True), workers=1)
    assert not any(u.summed for u in units)


def test_the_longest_goes_first_and_the_unknown_counts_as_average():
    units = [Unit((k,), summed=False) for k in range(4)]
    order = in_placing_order(units, {0: 1.0, 1: 5.0, 2: 3.0}, vector_bytes=8)
    assert [u.clients[0] for u in order] == [1, 2, 3, 0]


def test_large_updates_go_out_in_client_order_so_that_they_need_not_wait_in_memory():
    units = [Unit((k,), summed=False) for k in range(4)]
    assert in_placing_order(units, {3: 9.0, 0: 1.0}, vector_bytes=OVERTAKING_BYTES // 3) == units
    sums = [Unit((k,)) for k in range(4)]
    assert in_placing_order(sums, {3: 9.0, 0: 1.0}, vector_bytes=OVERTAKING_BYTES)[0].clients == (3,)
