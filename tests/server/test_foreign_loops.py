"""Somebody else's loop around a strategy of ours: refused before anything is sent, never silently wrong."""

import pytest
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    Strategy,
)
from torch import nn

from fedunlearn.errors import UserError
from fedunlearn.federation.local import LocalGrid
from fedunlearn.federation.payload import pack
from fedunlearn.requests import Ledger
from fedunlearn.strategies.local_routine import LocalRoutine
from fedunlearn.strategies.natural import Natural
from fedunlearn.strategies.puf import PUF
from fedunlearn.strategies.retrain import Retrain
from tests.server.tiny import NUM_CLIENTS, Clients, Federation, initial_state, settings

METHODS = [(PUF, {}), (Natural, {}), (Retrain, {}), (LocalRoutine, {"routine": "fine-tune"})]
WRAPPERS = [
    DifferentialPrivacyServerSideFixedClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyClientSideAdaptiveClipping,
]


def asked():
    """Return a ledger with a request that is due in round 2, and clients."""
    ledger = Ledger(":memory:")
    ledger.submit("federation", request_id="r1", clients=(2,), at_round=1)
    return ledger, Clients()


def refused(start, ledger, clients):
    """Let somebody's loop begin, and see that it is refused before anything is sent or planned."""
    with pytest.raises(
        UserError, match=r"^\w+ must be run with its own start\(\): Flower's Strategy.start"
    ) as said:
        start(LocalGrid(clients.app, NUM_CLIENTS), pack(initial_state()), num_rounds=4)
    assert "\n" not in str(said.value)
    assert clients.asked == []
    assert ledger.plans("federation") == []
    assert ledger.request("federation", "r1").state == "received"


@pytest.mark.parametrize(("kind", "options"), METHODS)
def test_flower_s_loop_is_refused(kind, options):
    ledger, clients = asked()
    strategy = kind(settings(), kind.settings_type(**options), ledger=ledger)
    refused(lambda *args, **kw: Strategy.start(strategy, *args, **kw), ledger, clients)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_flower_s_wrappers_are_refused(wrapper):
    ledger, clients = asked()
    wrapped = wrapper(
        PUF(settings(), ledger=ledger),
        noise_multiplier=0.1,
        num_sampled_clients=NUM_CLIENTS,
        **({"clipping_norm": 1.0} if "Fixed" in wrapper.__name__ else {}),
    )
    refused(wrapped.start, ledger, clients)


def test_after_a_loop_of_its_own_another_s_is_refused_still():
    ledger, clients = asked()
    strategy = PUF(settings(), ledger=ledger)
    grid = LocalGrid(clients.app, NUM_CLIENTS)
    strategy.start(grid, pack(initial_state()), num_rounds=1)
    before = len(clients.asked)
    with pytest.raises(UserError, match="its own start"):
        Strategy.start(strategy, grid, pack(initial_state()), num_rounds=4)
    with pytest.raises(UserError, match="its own start"):
        strategy.aggregate_train(2, [])
    assert len(clients.asked) == before


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        (
            ArrayRecord(nn.Linear(2, 3).state_dict()),
            "initial_arrays hold 'weight', 'bias': a model travels as",
        ),
        (ArrayRecord(), "initial_arrays hold nothing: a model travels as 'parameters'"),
        (
            ArrayRecord({"parameters": nn.Linear(2, 3).weight.detach()}),
            r"'parameters' of shape \(3, 2\): must be one",
        ),
        (
            ArrayRecord({"parameters": initial_state().vector, "running_mean": initial_state().vector}),
            "initial_arrays hold 'parameters', 'running_mean'",
        ),
    ],
)
def test_a_state_dict_to_start_from_is_refused_in_one_line(arrays, why):
    made = Federation()
    with pytest.raises(UserError, match=why) as said:
        PUF(settings()).start(LocalGrid(made.clients.app, NUM_CLIENTS), arrays, num_rounds=1)
    assert "\n" not in str(said.value)
    assert made.clients.asked == []
