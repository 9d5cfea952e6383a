"""Partitioners deal every row out exactly once, by their rule, and the same for the same generator."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fedunlearn import plugins
from fedunlearn.data.partitioners import (
    DirichletSettings,
    PathologicalSettings,
    ShardsSettings,
    dirichlet,
    hand_out,
    iid,
    in_turn,
    pathological,
    shards,
)
from fedunlearn.errors import ConfigError
from tests.oracles import partition_by_lists

LABELS = np.repeat(np.arange(10), 40)


def deal(name, labels, num_clients, seed=0, rng=None, **keys):
    return plugins.call(
        "partitions",
        name,
        settings=plugins.settings_type("partitions", name)(**keys),
        labels=labels,
        num_clients=num_clients,
        rng=rng or np.random.default_rng(seed),
    )


def counts(parts, labels, num_classes=10):
    return np.array([np.bincount(labels[part], minlength=num_classes) for part in parts])


labellings = st.lists(st.integers(0, 4), min_size=60, max_size=200).map(np.array)
names = st.sampled_from(["iid", "dirichlet", "pathological", "shards"])


@given(names, labellings, st.integers(3, 6), st.integers(0, 2**32))
def test_every_row_goes_to_exactly_one_client(name, labels, num_clients, seed):
    try:
        parts = deal(name, labels, num_clients, seed)
    except ConfigError:  # a client without data, as the small classes of some labellings make likely
        assume(False)
    assert len(parts) == num_clients
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for part in parts:
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()


@given(names, st.integers(0, 2**32))
def test_same_generator_same_partition_and_another_generator_another(name, seed):
    try:
        first, again, other = (deal(name, LABELS, 4, s) for s in (seed, seed, seed + 1))
    except ConfigError:
        assume(False)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@given(st.integers(1, 50), st.integers(50, 200), st.integers(0, 2**32))
def test_iid_sizes_differ_by_one_at_most(num_clients, n, seed):
    sizes = [len(part) for part in iid(np.zeros(n, dtype=np.int64), num_clients, np.random.default_rng(seed))]
    assert max(sizes) - min(sizes) <= 1


def test_iid_mixes_the_classes():
    assert counts(iid(LABELS, 4, np.random.default_rng(0)), LABELS).min() > 0


@given(st.integers(0, 2**32))
def test_dirichlet_with_huge_alpha_is_even(seed):
    parts = dirichlet(LABELS, 4, np.random.default_rng(seed), settings=DirichletSettings(alpha=1e8))
    # 10 of each class per client; a cut is rounded down, so it may fall one row early.
    assert np.abs(counts(parts, LABELS) - 10).max() <= 1


@given(st.integers(0, 2**32))
def test_dirichlet_with_tiny_alpha_gives_each_class_to_one_client(seed):
    try:
        parts = dirichlet(LABELS, 2, np.random.default_rng(seed), settings=DirichletSettings(alpha=1e-8))
    except ConfigError:  # one of the two got all ten classes
        assume(False)
    assert set(counts(parts, LABELS).ravel()) == {0, 40}


def test_smaller_alpha_is_more_skewed():
    def largest_share(alpha):
        draws = [
            dirichlet(LABELS, 4, np.random.default_rng(seed), settings=DirichletSettings(alpha=alpha))
            for seed in range(20)
        ]
        return np.mean([counts(parts, LABELS).max(axis=0) / 40 for parts in draws])

    assert largest_share(0.3) > largest_share(1.0) + 0.1 > largest_share(10.0) + 0.2


@given(st.integers(1, 10), st.integers(10, 20), st.integers(0, 2**32))
def test_pathological_clients_hold_k_classes_and_classes_are_held_evenly(k, num_clients, seed):
    parts = pathological(
        LABELS, num_clients, np.random.default_rng(seed), settings=PathologicalSettings(classes_per_client=k)
    )
    held = counts(parts, LABELS) > 0
    assert (held.sum(axis=1) == k).all()
    assert held.sum(axis=0).max() - held.sum(axis=0).min() <= 1


def test_pathological_pairs_of_classes_vary():
    held = (
        counts(
            pathological(
                LABELS, 20, np.random.default_rng(0), settings=PathologicalSettings(classes_per_client=2)
            ),
            LABELS,
        )
        > 0
    )
    assert len({tuple(np.flatnonzero(row)) for row in held}) > 10


@given(st.integers(1, 4), st.integers(0, 2**32))
def test_shards_are_equal_and_a_client_holds_no_more_classes_than_shards(per_client, seed):
    # 20 clients, shards of 3 rows: the 6 · per_client rows of a class are whole shards.
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(10), 6 * per_client))
    parts = shards(
        labels, 20, np.random.default_rng(seed), settings=ShardsSettings(shards_per_client=per_client)
    )
    table = counts(parts, labels)
    assert (table.sum(axis=1) == 3 * per_client).all()
    assert ((table > 0).sum(axis=1) <= per_client).all()
    assert (table % 3 == 0).all()


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (
            lambda rng: iid(np.zeros(3, dtype=np.int64), 5, rng),
            "federation.num-clients = 5: leaves client 3 (of 5) without data; there are only 3 training rows: use "
            "fewer clients",
        ),
        (
            lambda rng: dirichlet(LABELS, 100_000, rng, settings=DirichletSettings(alpha=0.3)),
            "federation.num-clients = 100000: leaves client 0 (of 100000) without data; there are only "
            f"{len(LABELS)} training rows: use fewer clients",
        ),
        (
            lambda rng: dirichlet(LABELS, 50, rng, settings=DirichletSettings(alpha=0.01)),
            "data.alpha = 0.01: leaves client 0 (of 50) without data; "
            "raise it, lower federation.num-clients or use another seed",
        ),
        (
            lambda rng: dirichlet(LABELS, 5, rng, settings=DirichletSettings(alpha=1e308)),
            "data.alpha = 1e+308: too large to draw from; 1e6 is practically even",
        ),
        (
            lambda rng: pathological(LABELS, 5, rng, settings=PathologicalSettings(classes_per_client=11)),
            "data.classes-per-client = 11: the data have only 10 classes; lower it",
        ),
        (
            lambda rng: pathological(LABELS, 3, rng, settings=PathologicalSettings(classes_per_client=2)),
            "data.classes-per-client = 2: 3 clients cannot cover 10 classes; "
            "raise it or federation.num-clients",
        ),
        (
            lambda rng: pathological(
                np.arange(4), 5, rng, settings=PathologicalSettings(classes_per_client=1)
            ),
            "federation.num-clients = 5: leaves client 4 (of 5) without data; there are only 4 training rows: use "
            "fewer clients",
        ),
        (
            lambda rng: pathological(
                np.array([0, 1, 2, 3, 3]), 5, rng, settings=PathologicalSettings(classes_per_client=1)
            ),
            "data.classes-per-client = 1: leaves client 4 (of 5) without data; lower federation.num-clients",
        ),
        (
            lambda rng: shards(np.arange(6), 4, rng, settings=ShardsSettings(shards_per_client=4)),
            "data.shards-per-client = 4: leaves client 2 (of 4) without data; "
            "lower it or federation.num-clients",
        ),
    ],
)
def test_a_partition_that_cannot_be_is_refused_in_one_line(attempt, message):
    with pytest.raises(ConfigError) as caught:
        attempt(np.random.default_rng(0))
    assert str(caught.value) == message


def test_hand_out_gives_every_row_to_its_owner():
    partition = hand_out(np.array([1, 0, -1, 1, 0]), 2, "", "")
    assert [rows.tolist() for rows in partition] == [[1, 4], [0, 3]]


@given(st.integers(0, 60), st.integers(1, 20))
def test_in_turn_cuts_as_numpy_does(n, parts):
    pieces = np.array_split(np.arange(n), parts)
    assert in_turn(n, parts).tolist() == [part for part, piece in enumerate(pieces) for _ in piece]


# -- the same rows for the same generator as by lists of lists -----------------------------------------------


@given(
    st.sampled_from(
        [
            ("iid", {}),
            ("dirichlet", {"alpha": 0.02}),
            ("dirichlet", {"alpha": 0.7}),
            ("dirichlet", {"alpha": 1e6}),
            ("pathological", {"classes_per_client": 1}),
            ("pathological", {"classes_per_client": 3}),
            ("shards", {"shards_per_client": 1}),
            ("shards", {"shards_per_client": 3}),
        ]
    ),
    labellings,
    st.integers(5, 30),
    st.integers(0, 2**32),
)
def test_every_rule_deals_the_rows_that_the_slow_one_deals(rule, labels, num_clients, seed):
    name, setting = rule
    mine, its = np.random.default_rng(seed), np.random.default_rng(seed)
    try:
        dealt = deal(name, labels, num_clients, rng=mine, **setting)
    except ConfigError as refused:
        if "without data" not in str(refused):  # too few classes to deal from
            return
        dealt = str(refused)
    expected = getattr(partition_by_lists, name)(labels, num_clients, its, **setting)
    if [] in expected:
        assert f"leaves client {expected.index([])} (of {num_clients}) without data" in dealt
    else:
        assert [rows.tolist() for rows in dealt] == expected
    assert mine.bit_generator.state == its.bit_generator.state


def test_every_rule_deals_so_with_hundreds_of_clients_too():
    labels = np.random.default_rng(0).permutation(np.arange(6000) % 10)
    for name, setting in (
        ("iid", {}),
        ("dirichlet", {"alpha": 3.0}),
        ("pathological", {"classes_per_client": 2}),
        ("shards", {"shards_per_client": 2}),
    ):
        dealt = deal(name, labels, 300, seed=1, **setting)
        expected = getattr(partition_by_lists, name)(labels, 300, np.random.default_rng(1), **setting)
        assert [rows.tolist() for rows in dealt] == expected, name
