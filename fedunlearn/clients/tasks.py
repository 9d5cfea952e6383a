"""Every task's routine, and the one place where it is chosen: by the experiment's data."""

from __future__ import annotations

from fedunlearn import plugins, workspace
from fedunlearn.clients.trainer import Routine
from fedunlearn.config import Experiment
from fedunlearn.data import FederatedData


def routine_at(path: str, seed: int) -> Routine:
    """Return this thread's routine for the experiment in a file, with the data that ``seed`` deals out."""
    return _routine(workspace.workplace(path, seed))


def routine_of(experiment: Experiment, seed: int) -> Routine:
    """Return a worker's routine for an experiment, wherever the worker is."""
    return routine_on(experiment, workspace.data_of(experiment, seed))


def routine_on(experiment: Experiment, data: FederatedData) -> Routine:
    """Return this thread's routine for an experiment on given data: a node's own."""
    return _routine(workspace.Workplace(experiment, data, workspace.model_of(experiment, data)))


def _routine(place: workspace.Workplace) -> Routine:
    kind: type[Routine] = plugins.find("tasks", place.experiment.data.task)
    return kind(place)
