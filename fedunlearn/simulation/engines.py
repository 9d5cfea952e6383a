"""From the engine that an experiment names to the Grid that its strategies run on."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial

from flwr.serverapp import Grid

from fedunlearn import workspace
from fedunlearn.clients.app import app
from fedunlearn.clients.tasks import routine_of
from fedunlearn.config import Experiment
from fedunlearn.federation.local import LocalGrid

CLIENT_APP = "fedunlearn.clients.app:app"
"""For processes of Ray, which import what they run; a :class:`~flwr.clientapp.ClientApp` cannot be pickled."""


def open_grid(experiment: Experiment, experiment_path: str, seed: int) -> AbstractContextManager[Grid]:
    """Return the Grid of an experiment's engine, for one of its seeds; to be used in a ``with`` statement.

    Parameters
    ----------
    experiment
        With nothing left to choose about its engine: not ``auto``.
    experiment_path
        The resolved experiment file, for clients that are asked by message.
    seed
        The experiment seed, which deals out the data.
    """
    engine = experiment.engine
    num_clients = experiment.federation.num_clients
    run_config: dict[str, bool | float | int | str] = {"experiment": experiment_path, "seed": seed}
    routine = partial(routine_of, experiment, seed)
    if engine.name == "local":
        return LocalGrid(
            app,
            num_clients,
            run_config=run_config,
            workers=engine.workers,
            threads_per_client=engine.threads_per_client,
            routine=routine,
            batch_clients=engine.batch_clients,
        )
    if engine.name == "ray":
        from fedunlearn.federation.ray import RayGrid  # slow to import, and not everybody has it

        return RayGrid(
            CLIENT_APP,
            num_clients,
            run_config=run_config,
            # More than a round has clients would only take memory and time to start.
            workers=engine.given_workers and min(engine.given_workers, experiment.federation.slots),
            threads_per_client=engine.threads_per_client,
            routine=routine,
            batch_clients=engine.batch_clients,
            address=engine.ray.address,
            cpus_per_worker=engine.cpus_per_worker,
            gpus_per_worker=engine.gpus_per_worker(workspace.device_of(experiment).type),
        )
    raise ValueError(f"engine {engine.name!r}: choose one first")
