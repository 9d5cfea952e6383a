"""Who is forgotten: listed, each in turn, or drawn by the seed and by nothing else."""

from __future__ import annotations

from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn import config
from fedunlearn.config.targets import MOST_IN_TURN, DrawnTargets, target_sets
from fedunlearn.errors import ConfigError


@st.composite
def draws(draw: st.DrawFn) -> tuple[DrawnTargets, int, int]:
    num_clients = draw(st.integers(2, 12))
    size = draw(st.integers(1, num_clients - 1))
    number = draw(st.integers(1, min(12, comb(num_clients, size))))
    return DrawnTargets(draw=number, size=size), num_clients, draw(st.integers(0, 2**32))


@given(draws())
def test_drawn_sets_are_as_many_and_as_large_as_asked_and_differ(
    drawn: tuple[DrawnTargets, int, int],
) -> None:
    targets, num_clients, seed = drawn
    sets = target_sets(targets, num_clients, seed)
    assert len(sets) == len(set(sets)) == targets.draw
    for clients in sets:
        assert list(clients) == sorted(set(clients)) and len(clients) == targets.size
        assert all(type(client) is int and 0 <= client < num_clients for client in clients)
    if targets.draw * targets.size <= num_clients:
        assert len({client for clients in sets for client in clients}) == targets.draw * targets.size
    assert target_sets(targets, num_clients, seed) == sets


def test_the_seed_decides_and_every_client_may_be_drawn() -> None:
    targets = DrawnTargets(draw=1, size=1)
    assert {target_sets(targets, 5, seed) for seed in range(100)} == {((client,),) for client in range(5)}


def test_this_seed_drew_these_clients_in_every_version() -> None:
    assert target_sets(DrawnTargets(draw=3, size=1), 10, seed=1) == ((5,), (7,), (6,))


def test_each_of_very_many_is_refused_in_one_line() -> None:
    text = tiny_toml("each", 100_000)
    with pytest.raises(ConfigError) as caught:
        config.loads(text, "x.toml")
    assert str(caught.value) == (
        'targets = "each" (x.toml): would forget 100,000 clients in turn and retrain 200,000 federations; '
        "draw some of them, such as targets = {draw = 10}, or list them"
    )
    assert config.loads(tiny_toml("each", MOST_IN_TURN)).targets == "each"
    assert len(target_sets(DrawnTargets(draw=10), 100_000, seed=1)) == 10


def tiny_toml(targets: str, num_clients: int) -> str:
    return f"""
        name = "x"
        targets = "{targets}"
        data.source = "digits"
        federation.num-clients = {num_clients}
        model.name = "mlp"
        train = {{rounds = 1, lr = 0.1}}
        method = [{{name = "natural"}}]
    """


def test_listed_and_each() -> None:
    assert target_sets(((3, 1), (0,)), 5, seed=1) == ((1, 3), (0,))
    assert target_sets("each", 3, seed=1) == ((0,), (1,), (2,))
