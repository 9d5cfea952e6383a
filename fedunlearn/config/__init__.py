"""One experiment is one tree of frozen dataclasses, read from one TOML file.

Keys are the field names with ``-`` for ``_``. A field's annotation is its check; what two settings can only
get wrong together is in ``checks.py``. Nothing here imports torch or Flower, so that the command line
stays quick; reading a file imports the components that it names. An experiment put together in Python is checked
by ``loads(to_toml(experiment))``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, Literal

from fedunlearn.config.checks import contradictions
from fedunlearn.config.conditions import Name as Name
from fedunlearn.config.conditions import Share as Share
from fedunlearn.config.engine import EngineConfig as EngineConfig
from fedunlearn.config.engine import Precision
from fedunlearn.config.engine import RayConfig as RayConfig
from fedunlearn.config.experiment import ALWAYS as ALWAYS
from fedunlearn.config.experiment import DataConfig as DataConfig
from fedunlearn.config.experiment import Experiment as Experiment
from fedunlearn.config.experiment import ForgetConfig as ForgetConfig
from fedunlearn.config.experiment import MeasuresConfig as MeasuresConfig
from fedunlearn.config.experiment import MethodConfig as MethodConfig
from fedunlearn.config.experiment import ModelConfig as ModelConfig
from fedunlearn.config.experiment import RecoverConfig as RecoverConfig
from fedunlearn.config.experiment import TrainConfig as TrainConfig
from fedunlearn.config.federation import FederationConfig as FederationConfig
from fedunlearn.config.federation import slots_of as slots_of
from fedunlearn.config.floor import FloorConfig as FloorConfig
from fedunlearn.config.live import GuardConfig as GuardConfig
from fedunlearn.config.live import RequestsConfig as RequestsConfig
from fedunlearn.config.live import RetentionConfig as RetentionConfig
from fedunlearn.config.source import parse, read_text, with_overrides
from fedunlearn.config.targets import TargetConfig as TargetConfig
from fedunlearn.config.toml_text import dumps
from fedunlearn.config.toml_tree import Origin, plain, read
from fedunlearn.errors import ConfigError


def load(path: str | PathLike[str], *, overrides: Sequence[str] = (), smoke: bool = False) -> Experiment:
    """Read an experiment file.

    Parameters
    ----------
    path : path-like
        The TOML file.
    overrides : sequence of str
        Assignments as after ``--set``, such as "train.lr=0.05" or "method[2].scale=5" (the second method);
        applied last.
    smoke : bool
        Apply the file's ``[smoke]`` table, before the overrides.

    Returns
    -------
    Experiment
        With an empty ``smoke`` if anything was overridden: that table was written for the file as it is.

    Raises
    ------
    ConfigError
        With one line that names key, value, place and remedy.
    """
    return loads(read_text(path), str(path), overrides=overrides, smoke=smoke)


def loads(
    text: str, place: str = "<string>", *, overrides: Sequence[str] = (), smoke: bool = False
) -> Experiment:
    """Read an experiment from TOML text; ``place`` stands for the file in errors. See ``load``."""
    table = parse(text, place)
    if smoke and not table.get("smoke"):
        raise ConfigError(f"smoke ({place}): is missing; write a smoke run's settings under [smoke]")
    experiment = _checked(table, place, overrides, smoke=smoke)
    if smoke or overrides:
        return replace(experiment, smoke={})
    if experiment.smoke:
        _checked(table, place, (), smoke=True)  # refused now, not on the day somebody needs it
    return experiment


def to_toml(experiment: Experiment) -> str:
    """Return the experiment as TOML with every default written out; ``loads`` gives the same experiment.

    What is still to be chosen (see ``EngineConfig``) is left out, so that it is still to be chosen.
    """
    return dumps(plain(experiment))


def with_engine(
    experiment: Experiment,
    *,
    name: Literal["local", "ray", "auto"] | None = None,
    workers: int | None = None,
    batch_clients: int | None = None,
    precision: Precision | None = None,
) -> Experiment:
    """Return the experiment with choices about its engine made; None leaves a setting as it is.

    Parameters
    ----------
    name : {"local", "ray", "auto"}, optional
        With any but "auto", precision and batch-clients that are still to be chosen become the defaults.
    workers, batch_clients : int, optional
        At least 1.
    precision : {"float32", "float64", "bfloat16"}, optional
        What clients compute in.

    Raises
    ------
    ConfigError
        If a choice is none that a file could have named, such as "bfloat16" under exact numerics.
    """
    tree = plain(experiment)
    choices = {"name": name, "workers": workers, "batch-clients": batch_clients, "precision": precision}
    tree["engine"] |= {key: value for key, value in choices.items() if value is not None}
    return _read(tree, Origin("the chosen engine"))


def digest(experiment: Experiment) -> str:
    """Return the SHA-256 (hex) of everything that can change a result, as far as it is given.

    That is all but the engine's name, its number of workers and its cluster, whether a cache is used, whether
    pictures are drawn, ``[smoke]``, and the word that it was applied. What a probe will choose does not count until
    it is chosen: starting such an experiment again gives the same digest, whatever is chosen this time.
    """
    tree = plain(experiment)
    for key in ("cache", "smoke", "smoke-run"):
        tree.pop(key, None)
    for key in ("name", "workers", "ray"):
        tree["engine"].pop(key, None)
    tree["measures"].pop("pictures", None)
    if experiment.measures.unseen == "test":
        del tree["measures"]["unseen"]  # as it was before there was a choice
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _checked(table: Mapping[str, Any], file: str, overrides: Sequence[str], *, smoke: bool) -> Experiment:
    return _read(*with_overrides(table, file, overrides, smoke=smoke))


def _read(tree: Mapping[str, Any], origin: Origin) -> Experiment:
    if "space" in tree and "experiment" in tree:
        raise origin.error("space", None, "belongs to a sweep; run this file with fedunlearn sweep")
    experiment = read(Experiment, tree, origin)
    for path, value, message in contradictions(experiment):
        raise origin.error(path, value, message)
    return experiment
