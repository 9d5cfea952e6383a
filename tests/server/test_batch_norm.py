"""A real network with BatchNorm is forgotten from: its running variances stay variances, whatever the scale."""

import pytest
import torch
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.federation.local import LocalGrid
from fedunlearn.federation.payload import ModelState, pack, unpack
from fedunlearn.requests import Ledger
from fedunlearn.server.settings import Settings
from fedunlearn.strategies.puf import PUF, PUFSettings
from fedunlearn.training import learning_rate
from tests.clients import sites
from tests.federation.contributions import bits
from tests.profiles import few

SEED = 1
UNLEARNS = 2
RECOVERS = 4
ROUTINE = sites.routine()  # one model for all: every round loads its own weights and buffers
START = ModelState(ROUTINE.model.vector.clone(), ROUTINE.model.buffers())
TRAIN = sites.experiment().train


def federation(clients=(1,), *, participation=1.0, rounds=RECOVERS, **options):
    """Return the global state after each round; ``clients`` are forgotten in round 2."""
    states = {0: START}
    ledger = Ledger(":memory:")
    ledger.submit("branch", request_id="r1", clients=tuple(clients), at_round=UNLEARNS - 1)
    strategy = PUF(
        Settings(sites.NUM_CLIENTS, TRAIN, SEED, participation=participation),
        PUFSettings(**options),
        branch="branch",
        ledger=ledger,
    )

    def keep(round, arrays):
        states[round] = unpack(arrays)

    with LocalGrid(ClientApp(), sites.NUM_CLIENTS, routine=lambda: ROUTINE) as grid:
        strategy.start(grid, pack(START), num_rounds=rounds, evaluate_fn=keep)
    return states


def variances(state):
    found = {name: buffer for name, buffer in state.buffers.items() if name.endswith("running_var")}
    assert len(found) >= 3
    return found


@pytest.mark.slow
@given(
    mode=st.sampled_from(["special", "regular"]),
    scale=st.sampled_from([0.0, 2.0, 7.0, 20.0, 40.0]) | st.floats(0, 120),
    clients=st.sets(st.integers(0, 3), min_size=1, max_size=3),
    participation=st.sampled_from([0.5, 1.0]),
)
@few
def test_no_variance_is_ever_negative(mode, scale, clients, participation):
    states = federation(sorted(clients), mode=mode, scale=scale, participation=participation)
    for round, state in states.items():
        assert torch.isfinite(state.vector).all()
        for name, variance in variances(state).items():
            assert (variance > 0).all(), (round, name)


def trained(client, state):
    """Return a client's buffers after its training in the round after ``state``."""
    ROUTINE.model.load(state.vector, state.buffers)
    config = {"round": UNLEARNS, "lr": learning_rate(TRAIN, UNLEARNS), "seed": SEED}
    result = ROUTINE.train(client, "train", config)
    return result.num_examples, ROUTINE.model.buffers()


@pytest.mark.parametrize("scale", [7.0, 120.0])
def test_special_leaves_every_buffer_as_it_was(scale):
    states = federation(mode="special", scale=scale, rounds=UNLEARNS)
    before, after = states[UNLEARNS - 1], states[UNLEARNS]
    assert {n: bits(b) for n, b in after.buffers.items()} == {n: bits(b) for n, b in before.buffers.items()}
    assert not torch.equal(before.vector, after.vector)


@pytest.mark.parametrize("scale", [20.0, 120.0])
def test_regular_averages_them_over_the_sites_that_stay_and_counts_the_most_batches(scale):
    states = federation(mode="regular", scale=scale, rounds=UNLEARNS)
    answers = [trained(client, states[UNLEARNS - 1]) for client in (0, 2, 3)]
    total = sum(n for n, _ in answers)
    for name, found in states[UNLEARNS].buffers.items():
        if found.is_floating_point():
            expected = sum(n * buffers[name].double() for n, buffers in answers) / total
            torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-7)
        else:
            assert found == max(buffers[name] for _, buffers in answers) == 6, (
                "3 batches of site 2 in each round"
            )


def test_negated_like_weights_they_would_have_become_negative():
    """So the tests above could fail: these sites do change their variances by more than PUF's scale allows."""
    before = federation(rounds=UNLEARNS - 1)[UNLEARNS - 1]
    _, after = trained(1, before)
    for scale in (20.0, 120.0):
        extrapolated = [
            (old - scale * (after[name] - old)).min().item() for name, old in variances(before).items()
        ]
        assert min(extrapolated) < 0
