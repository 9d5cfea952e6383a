"""What a process keeps between messages: experiments by path, data once, one model per worker thread.

Under Flower's deployment runtime every message starts a new process and these caches are simply empty; under
the in-process engines they are what makes a round cost its arithmetic and nothing else.
"""

import threading
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import torch

from fedunlearn import config, models, unlearning
from fedunlearn.config import Experiment
from fedunlearn.data import FederatedData, load_federated
from fedunlearn.data.augmentation import augmentation_of
from fedunlearn.errors import ConfigError
from fedunlearn.models.flat import FlatModel
from fedunlearn.out_of_memory import naming_shortage
from fedunlearn.parts import Parts
from fedunlearn.training import LOSSES, Recipe, accelerate
from fedunlearn.unlearning.output_filter import with_slot

DATA_KEPT = 2
"""Partitions of data that stay in memory, the latest."""


class Workplace(NamedTuple):
    """Everything a client works with but its message."""

    experiment: Experiment
    data: FederatedData
    model: FlatModel


_lock = threading.Lock()
_thread = threading.local()


@lru_cache(maxsize=8)
def experiment_at(path: str) -> Experiment:
    """Return the experiment in a resolved file, which is never changed once a run has started."""
    return config.load(path)


def device_of(experiment: Experiment) -> torch.device:
    """Return the device that ``engine.device`` means here."""
    name = experiment.engine.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError('engine.device = "cuda": there is no CUDA device here; use "auto" or "cpu"')
    return torch.device(name)


def dtype_of(experiment: Experiment) -> torch.dtype:
    """Return the dtype that weights and data have under ``engine.precision``.

    With "bfloat16" only the arithmetic of a training step is of that type: weights stay float32.
    """
    return torch.float64 if experiment.engine.precision == "float64" else torch.float32


def recipe_of(experiment: Experiment, data: FederatedData) -> Recipe:
    """Return what the experiment's clients train with beside ``[train]``: their task's loss, and augmentation."""
    return Recipe(LOSSES[experiment.data.task], augmentation_of(experiment, data.pixels))


def data_of(experiment: Experiment, seed: int) -> FederatedData:
    """Return the experiment's data, partitioned by ``seed``; loaded once per process."""
    with _lock:
        data = _load_data(
            experiment.data,
            experiment.federation.num_clients,
            seed,
            device_of(experiment),
            dtype_of(experiment),
        )
        return _as_asked(data, experiment.parts, seed, experiment.measures.unseen)


@lru_cache(maxsize=DATA_KEPT)
def _as_asked(data: FederatedData, parts: Parts, seed: int, unseen: str) -> FederatedData:
    if unseen == "validation":
        data = data.without_test()
    return data.with_parts(parts, seed)


@lru_cache(maxsize=DATA_KEPT)
def _load_data(
    data: config.DataConfig, num_clients: int, seed: int, device: torch.device, dtype: torch.dtype
) -> FederatedData:
    with naming_shortage("loading the data"):
        return load_federated(data, num_clients, seed, device=device, dtype=dtype)


def has_filter_slot(experiment: Experiment) -> bool:
    """Return whether the model has a place for an output filter after it: whether a routine is one."""
    routines = (method.routine for method in experiment.methods if method.routine is not None)
    return any(unlearning.method(routine).returns == "filter" for routine in routines)


def new_model(experiment: Experiment, data: FederatedData, seed: int) -> FlatModel:
    """Build the experiment's model with the initial weights that ``seed`` draws."""
    with naming_shortage(f"model {experiment.model.name}"):
        module = models.build(
            experiment.model,
            num_classes=data.num_classes,
            in_channels=data.in_channels,
            image_size=data.image_size,
            seed=seed,
        )
        if has_filter_slot(experiment):
            module = with_slot(module, data.num_classes)
        return FlatModel(module, dtype=dtype_of(experiment), device=device_of(experiment))


def model_of(experiment: Experiment, data: FederatedData) -> FlatModel:
    """Return this thread's resident model of the experiment; its weights are whatever was loaded last."""
    key = (
        experiment.model,
        has_filter_slot(experiment),
        data.num_classes,
        data.in_channels,
        data.image_size,
        device_of(experiment),
        experiment.engine.precision,
        experiment.engine.compile,
        experiment.engine.channels_last,
    )
    cached: dict[object, FlatModel] = _thread.__dict__.setdefault("models", {})
    if key not in cached:
        cached.clear()
        with _lock:
            cached[key] = new_model(_from_nothing(experiment), data, seed=0)
            accelerate(
                cached[key],
                precision=experiment.engine.precision,
                compile=experiment.engine.compile,
                channels_last=experiment.engine.channels_last,
            )
    return cached[key]


def _from_nothing(experiment: Experiment) -> Experiment:
    """Return the experiment without a file of initial weights: a client, which is sent weights, need not have it."""
    settings = experiment.model.settings
    if getattr(settings, "weights", None) is None:
        return experiment
    return replace(experiment, model=replace(experiment.model, settings=replace(settings, weights=None)))


def workplace(path: str, seed: int) -> Workplace:
    """Return this thread's workplace for an experiment and its seed.

    The last one is kept whole: a small model trains in little more time than it takes to look up its parts.
    """
    if _thread.__dict__.get("key") != (path, seed):
        experiment = experiment_at(path)
        data = data_of(experiment, seed)
        _thread.workplace = Workplace(experiment, data, model_of(experiment, data))
        _thread.key = (path, seed)
    found: Workplace = _thread.workplace
    return found
