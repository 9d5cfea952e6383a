"""``flwr run`` as the benchmark calls it: the app's settings, the command line, a closed environment."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fedunlearn
from fedunlearn import workspace
from fedunlearn.errors import ConfigError, RunError

APP = Path(__file__).resolve().parent / "flower_app"


@dataclass(frozen=True, kw_only=True)
class FlowerCase:
    """What to run: an experiment's training, or a no-op, whose clients return the array that they are sent.

    Attributes
    ----------
    experiment : Path or None
        File of an experiment with ``num_clients`` clients and plain SGD; None for the no-op. Paths in it must
        be absolute, as the app runs in a folder of its own.
    noop_floats : int
        Size of the no-op's model, float32; 0 with an experiment.
    rounds : int
        In total; the first is no steady one.
    workers : int
        Ray actors of one thread each.
    """

    num_clients: int
    rounds: int
    experiment: Path | None = None
    noop_floats: int = 0
    workers: int = 1
    seed: int = 1


def run_config(case: FlowerCase) -> dict[str, Any]:
    """Return the app's settings but the folder for its output; a ConfigError says what it cannot do."""
    settings: dict[str, Any] = {
        "num-clients": case.num_clients,
        "num-rounds": case.rounds,
        "seed": case.seed,
        "noop-floats": case.noop_floats,
    }
    if (case.experiment is None) == (case.noop_floats == 0):
        raise ConfigError(
            f"noop-floats = {case.noop_floats}: must be given if, and only if, no experiment is"
        )
    if case.experiment is None:
        return settings
    path = case.experiment.resolve()
    experiment = workspace.experiment_at(str(path))
    for key, value, needed in (
        ("federation.num-clients", experiment.federation.num_clients, case.num_clients),
        ("federation.participation", experiment.federation.participation, 1.0),
        ("train.optimizer", experiment.train.optimizer, "sgd"),
        ("engine.precision", experiment.engine.precision or "float32", "float32"),
    ):
        if value != needed:
            raise ConfigError(f"{key} = {value!r} ({path}): must be {needed!r} here")
    data = workspace.data_of(experiment, case.seed)
    shapes = {
        "num-classes": data.num_classes,
        "in-channels": data.in_channels,
        "image-size": data.image_size,
    }
    return settings | shapes | {"experiment": str(path)}


def command(case: FlowerCase, settings: Path) -> list[str]:
    """Return the command line; the actors share one GPU where the experiment computes on one."""
    executable = shutil.which("flwr", path=str(_programs()))
    if executable is None:
        raise RunError(f'{_programs()} has no flwr: pip install "flwr[simulation]"')
    gpu = case.experiment is not None and (
        workspace.device_of(workspace.experiment_at(str(case.experiment.resolve()))).type == "cuda"
    )
    federation = {
        "num-supernodes": case.num_clients,
        "client-resources-num-cpus": 1,
        "client-resources-num-gpus": 1 / case.workers if gpu else 0.0,
        "init-args-num-cpus": case.workers,
        "init-args-num-gpus": int(gpu),
    }
    options = " ".join(f"{key}={value}" for key, value in federation.items())
    return [
        *(executable, "run", str(APP), "local", "--stream"),
        *("--run-config", str(settings), "--federation-config", options),
    ]


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of the command: nothing of the user's Flower or Ray, and no way to a network."""
    ours = {
        "FLWR_HOME": str(folder / "home"),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(_free_port()),
        "FLWR_LOCAL_CONTROL_API_PORT": str(_free_port()),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # whatever it is called: 127.0.0.1 instead of a public address
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        # The bundle is unpacked elsewhere, and finds what it imports as this process does.
        "PYTHONPATH": str(Path(fedunlearn.__file__).resolve().parents[1]),
        "PATH": os.pathsep.join([str(_programs()), os.environ.get("PATH", os.defpath)]),
    }
    theirs = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLWR_", "RAY_")) and not name.lower().endswith("_proxy")
    }
    return theirs | ours


def _programs() -> Path:
    return Path(sys.executable).parent


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
