"""Where a node's data are: a file of its own, or, on machines that have it, the experiment's source."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from flwr.app import Context

from fedunlearn import workspace
from fedunlearn.clients.tasks import routine_at, routine_on
from fedunlearn.clients.trainer import Routine
from fedunlearn.config import Experiment
from fedunlearn.config.experiment_path import in_bundle
from fedunlearn.data.export import CLIENT_FILE, DataPart, read_part
from fedunlearn.errors import ConfigError

FILES_KEPT = 8
"""Files that stay in memory, the latest: in a simulation one process may serve several nodes."""


def client_of(context: Context) -> int:
    """Return the number of the client that this node says it is: its ``partition-id``.

    Raises
    ------
    ConfigError
        If its configuration names none.
    """
    named = str(context.node_config.get("partition-id"))
    if not named.isdecimal():
        raise ConfigError(f"partition-id = {named} (node config): must be the number of this node's client")
    return int(named)


def routine_for(context: Context) -> Routine:
    """Return this thread's routine for the run that a message belongs to, with the data of this node.

    With ``data-dir`` in the node's configuration these are ``data.safetensors`` in that folder, and nothing else
    is ever opened. Without, they are dealt out of the experiment's source, as in a simulation.

    Raises
    ------
    ConfigError
        If the file is not there, or is not this client's, or not of this experiment.
    """
    path = in_bundle(str(context.run_config["experiment"]))
    folder = str(context.node_config.get("data-dir") or "")
    seed = context.run_config.get("seed")
    if not folder and seed is not None:
        # The engines of this package run every seed of an experiment, say which, and set their own threads.
        return routine_at(path, int(seed))
    experiment = workspace.experiment_at(path)
    # As many threads as in every other engine, or sums come out in another order.
    if torch.get_num_threads() != experiment.engine.threads_per_client:
        torch.set_num_threads(experiment.engine.threads_per_client)
    if not folder:
        return routine_at(path, experiment.seeds[0])
    client = client_of(context)
    part = _own_part(Path(folder) / CLIENT_FILE, experiment)
    if client >= experiment.federation.num_clients:
        raise ConfigError(
            f"partition-id = {client} (node config): the experiment has {experiment.federation.num_clients} clients, "
            "counted from 0"
        )
    if part.client != client:
        raise ConfigError(
            f"{Path(folder) / CLIENT_FILE}: has the data of client {part.client}, but this node serves client "
            f"{client}"
        )
    data = part.of_client(experiment.federation.num_clients, part.images.device)
    return routine_on(experiment, replace(data, seed=experiment.seeds[0]))


@lru_cache(maxsize=FILES_KEPT)
def _own_part(path: Path, experiment: Experiment) -> DataPart:
    part = read_part(path, task=experiment.data.task, dtype=workspace.dtype_of(experiment))
    device = workspace.device_of(experiment)
    return replace(part, images=part.images.to(device), labels=part.labels.to(device))
