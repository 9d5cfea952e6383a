"""From the settings of an experiment to an engine."""

import pytest

from fedunlearn.federation import ray as ray_module
from fedunlearn.simulation import engines
from fedunlearn.simulation.engines import open_grid
from tests.e2e.tiny import tiny


@pytest.mark.parametrize(
    ("name", "place", "grid"), [("local", engines, "LocalGrid"), ("ray", ray_module, "RayGrid")]
)
def test_every_engine_has_the_threads_that_are_asked_for(name, place, grid, monkeypatch):
    asked = []
    monkeypatch.setattr(place, grid, lambda app, num_clients, **how: asked.append(how["threads_per_client"]))
    open_grid(tiny(f"engine.name={name}", "engine.threads-per-client=3"), "experiment.toml", 1)
    assert asked == [3]


@pytest.mark.parametrize(
    ("overrides", "workers"),
    [
        (("engine.workers=64",), 4),
        (("engine.workers=64", "federation.participation=0.5"), 2),
        (("engine.workers=3",), 3),
        ((), None),  # the cluster decides
    ],
)
def test_no_more_ray_workers_than_a_round_has_clients(overrides, workers, monkeypatch):
    asked = []
    monkeypatch.setattr(ray_module, "RayGrid", lambda app, num_clients, **how: asked.append(how["workers"]))
    experiment = tiny("engine.name=ray", *overrides)
    assert experiment.federation.num_clients == 4
    open_grid(experiment, "experiment.toml", 1)
    assert asked == [workers]
