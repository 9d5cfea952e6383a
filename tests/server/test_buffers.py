"""BatchNorm statistics and counters: averaged over the retained clients, never negated."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.strategies.natural import Natural
from fedunlearn.strategies.puf import PUF
from tests.federation.contributions import bits
from tests.server.tiny import (
    Federation,
    buffers_after,
    examples_of,
    initial_state,
    only,
    raising,
    settings,
    update_of,
)

SCALE = 120.0


def unlearned(kind=PUF, *, clients=(1, 4), fault=None, participation=1.0, **options):
    """Return a federation after round 2, in which ``clients`` were forgotten."""
    made = Federation(
        start=initial_state(dtype=torch.float64, buffers=True),
        settings=settings(quorum=0.5, participation=participation),
    )
    if fault is not None:
        made.clients.fault = fault
    made.submit("r1", clients, 1)
    return made.run(kind, 2, **options)


def averaged(buffers, clients):
    """Return the buffers averaged over these clients, the plain way."""
    after = {k: buffers_after(buffers, k) for k in clients}
    total = sum(map(examples_of, clients))
    means = {
        name: sum(examples_of(k) * after[k][name] for k in clients) / total for name in ("mean", "variance")
    }
    return means | {"batches": max(after[k]["batches"] for k in clients)}


def assert_are(buffers, expected):
    assert buffers.keys() == expected.keys()
    for name, value in expected.items():
        assert buffers[name].dtype == value.dtype
        assert torch.allclose(buffers[name].double(), value.double(), rtol=0, atol=1e-13), name


def test_special_leaves_the_buffers_to_the_last_bit():
    ran = unlearned(mode="special", scale=SCALE)
    for name, before in ran.states[1].buffers.items():
        assert bits(ran.states[2].buffers[name]) == bits(before)
    assert not torch.equal(ran.weights(2), ran.weights(1)), "the weights did move"


def test_regular_averages_them_over_the_retained_clients():
    ran = unlearned(mode="regular", scale=SCALE)
    assert_are(ran.states[2].buffers, averaged(ran.states[1].buffers, [0, 2, 3, 5]))


def test_ordinary_rounds_average_them_over_everyone():
    ran = unlearned(Natural)
    assert_are(ran.states[1].buffers, averaged(ran.start.buffers, range(6)))
    assert_are(ran.states[2].buffers, averaged(ran.states[1].buffers, [0, 2, 3, 5]))


def test_the_last_client_forgotten_has_the_highest_counter_and_leaves_no_trace_of_it():
    ran = unlearned(clients=(5,), mode="regular", scale=SCALE)
    before = ran.states[1].buffers["batches"]
    assert ran.states[2].buffers["batches"] == before + 5, "client 4's; client 5 would have counted 6"


def test_regular_without_a_retained_client_leaves_the_buffers():
    ran = unlearned(mode="regular", scale=SCALE, participation=1 / 3)
    assert ran.clients.of_round(2) == [1, 4]
    for name, before in ran.states[1].buffers.items():
        assert bits(ran.states[2].buffers[name]) == bits(before)


@pytest.mark.parametrize("mode", ["special", "regular"])
def test_a_held_round_treats_the_buffers_alike(mode):
    ran = unlearned(mode=mode, scale=SCALE, fault=only(raising(OSError()), client=4, rounds=[2]))
    before = ran.states[1].buffers
    expected = averaged(before, [0, 2, 3, 5]) if mode == "regular" else before
    assert_are(ran.states[2].buffers, expected)


def test_failed_clients_have_no_part_in_them():
    ran = unlearned(mode="regular", fault=only(raising(OSError()), client=3, rounds=[2]))
    assert_are(ran.states[2].buffers, averaged(ran.states[1].buffers, [0, 2, 5]))


def test_the_parameters_next_to_them_are_negated_with_the_full_scale():
    ran = unlearned(clients=(1,), mode="special", scale=SCALE)
    w = ran.weights(1)
    assert torch.allclose(ran.weights(2), w - SCALE * update_of(w, 2, 1), rtol=0, atol=1e-11)


@given(
    mode=st.sampled_from(["special", "regular"]),
    scale=st.floats(0, 120),
    clients=st.sets(st.integers(0, 5), min_size=1, max_size=5),
    participation=st.sampled_from([0.2, 0.5, 1.0]),
)
def test_no_scale_makes_a_variance_negative(mode, scale, clients, participation):
    ran = unlearned(clients=clients, mode=mode, scale=scale, participation=participation)
    for t in (1, 2):
        assert (ran.states[t].buffers["variance"] > 0).all()


def test_negating_them_would_have_made_it_negative():
    """The clients of these tests do answer with buffers that PUF's formula cannot be applied to."""
    before = initial_state(dtype=torch.float64, buffers=True).buffers
    after = buffers_after(before, 5)["variance"]
    assert (before["variance"] - SCALE * (after - before["variance"]) > 0).all()
    low = buffers_after({**before, "variance": after * 0 + 0.1}, 5)["variance"]
    assert (0.1 - SCALE * (low - 0.1) < 0).all()
