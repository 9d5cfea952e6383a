"""A network with BatchNorm in every engine: weights and statistics to the same bits, whoever trains whom."""

import pytest
from flwr.clientapp import ClientApp

from fedunlearn import workspace
from fedunlearn.clients.app import app
from fedunlearn.federation.local import LocalGrid
from fedunlearn.federation.payload import ModelState, pack, unpack
from fedunlearn.federation.ray import RayGrid
from fedunlearn.requests import Ledger
from fedunlearn.server.settings import Settings
from fedunlearn.strategies.puf import PUF, PUFSettings
from tests.clients import sites
from tests.federation.contributions import bits
from tests.federation.ray_sessions import own_ray

PLACE = sites.workplace()
START = ModelState(PLACE.model.vector.clone(), PLACE.model.buffers())
MODES = ["special", "regular"]


def ran(grid, mode):
    """Return the weights and buffers after each of four rounds, the second of which unlearns, and the losses."""
    states, losses = {}, {}
    ledger = Ledger(":memory:")
    ledger.submit("branch", request_id="r1", clients=(1,), at_round=1)
    strategy = PUF(
        Settings(sites.NUM_CLIENTS, PLACE.experiment.train, 1),
        PUFSettings(mode=mode),
        branch="branch",
        ledger=ledger,
        observe=lambda report: losses.update({report.round: dict(report.losses)}),
    )

    def keep(round, arrays):
        state = unpack(arrays)
        states[round] = [bits(state.vector), *((name, bits(b)) for name, b in state.buffers.items())]

    strategy.start(grid, pack(START), num_rounds=4, evaluate_fn=keep)
    assert len({states[round][0] for round in states}) == 4
    return states, losses


@pytest.fixture(scope="module")
def one_by_one():
    """What one worker of this process makes of it."""
    with LocalGrid(ClientApp(), sites.NUM_CLIENTS, routine=sites.routine) as grid:
        return {mode: ran(grid, mode) for mode in MODES}


@pytest.mark.parametrize("mode", MODES)
def test_workers_side_by_side(mode, one_by_one):
    with LocalGrid(ClientApp(), sites.NUM_CLIENTS, routine=sites.routine, workers=3) as grid:
        assert ran(grid, mode) == one_by_one[mode]


@pytest.mark.parametrize("mode", MODES)
def test_messages_of_flower(mode, one_by_one, monkeypatch):
    monkeypatch.setattr(workspace, "workplace", lambda path, seed: PLACE)
    with LocalGrid(app, sites.NUM_CLIENTS, run_config={"experiment": "by hand", "seed": 1}) as grid:
        assert ran(grid, mode) == one_by_one[mode]


@pytest.mark.slow
def test_actors_of_ray(one_by_one):
    share = 0.1  # of a CPU for each actor: room for both on one
    options = {"workers": 2, "routine": sites.maker(), "cpus_per_worker": share}
    with own_ray(cpus=1), RayGrid("fedunlearn.clients.app:app", sites.NUM_CLIENTS, **options) as grid:
        assert {mode: ran(grid, mode) for mode in MODES} == one_by_one
