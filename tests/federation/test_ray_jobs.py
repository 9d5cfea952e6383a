"""Jobs on Ray actors, by their own way to train a round and by messages: the bytes of a federation in one thread."""

import pytest

from fedunlearn.federation.local import LocalGrid
from fedunlearn.federation.ray import RayGrid
from fedunlearn.simulation.engines import CLIENT_APP
from tests.federation.ray_sessions import own_ray
from tests.server.probing import SEED, UNLEARNS, experiment_in, federate, trainer_of

ROUNDS = UNLEARNS + 1
"""A round of each kind."""


@pytest.fixture(scope="module", autouse=True)
def session():
    with own_ray(cpus=1):
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    _, experiment = experiment_in(folder)
    return federate(folder, LocalGrid(None, 5, routine=trainer_of(experiment)), experiment, rounds=ROUNDS)


@pytest.mark.parametrize("messages", [False, True])
def test_actors_write_the_same_bytes(messages, whole, tmp_path):
    """The routine is beside the experiment's strategy: an actor finds it there without having loaded it before."""
    path, experiment = experiment_in(tmp_path)
    grid = RayGrid(
        CLIENT_APP,
        5,
        run_config={"experiment": str(path), "seed": SEED},
        workers=2,
        routine=None if messages else trainer_of(experiment),
        cpus_per_worker=0.1,
    )
    assert federate(tmp_path, grid, experiment, rounds=ROUNDS) == whole
