"""What a Flower run is told about its server: the run-config, checked, and the run directory that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedunlearn import config
from fedunlearn.config import Experiment
from fedunlearn.config.experiment_path import experiment_path
from fedunlearn.durable import write_durably
from fedunlearn.errors import UserError
from fedunlearn.home import expanded, user_folder
from fedunlearn.runs.directory import EXPERIMENT, run_name


@dataclass(frozen=True)
class ServerSettings:
    """The server's side of ``[tool.flwr.app.config]``; None: not given.

    Attributes
    ----------
    experiment : Path
        The experiment's file.
    folder : Path or None
        The run directory.
    roster : Path or None
        Which node is which client.
    validation : Path or None
        A file of validation data.
    signing_key : Path or None
        The private key that signs the trail and certificates.
    superlink_database : Path or None
        The SuperLink's state, in which ``[retention]`` looks for what is left of a client.
    """

    experiment: Path
    folder: Path | None = None
    roster: Path | None = None
    validation: Path | None = None
    signing_key: Path | None = None
    superlink_database: Path | None = None

    @classmethod
    def of(cls, run_config: Mapping[str, Any]) -> ServerSettings:
        """Read a run-config.

        Raises
        ------
        UserError
            If there is no such experiment, or a path is relative: the app runs with a working directory of
            Flower's choice.
        """
        return cls(
            experiment=experiment_path(str(run_config["experiment"])),
            folder=_path(run_config, "folder"),
            roster=_path(run_config, "roster"),
            validation=_path(run_config, "validation"),
            signing_key=_path(run_config, "signing-key"),
            superlink_database=_path(run_config, "superlink-database"),
        )


def _path(run_config: Mapping[str, Any], key: str) -> Path | None:
    named = str(run_config.get(key) or "")
    if not named:
        return None
    path = expanded(named)
    if not path.is_absolute():
        raise UserError(
            f'{key} = "{named}" (run config): must be an absolute path, as Flower chooses '
            "the app's working directory"
        )
    return path


def data_home() -> Path:
    """Return the folder of run directories that nobody named: in ``$XDG_DATA_HOME``, or ``~/.local/share``."""
    base = user_folder("XDG_DATA_HOME", "~/.local/share")
    if base is None:
        raise UserError("folder (run config): is required, as there is no home folder; name a run directory")
    return base / "fedunlearn" / "runs"


def open_folder(experiment: Experiment, folder: Path | None) -> Path:
    """Make the run directory, or find it made for the same experiment, and return it.

    Who may write there is decided by the ledger's lease, not by a lock on the folder: a server that is cut off
    may hold a lock for as long as it lives.

    Raises
    ------
    UserError
        If it cannot be made, or holds a run of another experiment.
    """
    path = folder if folder is not None else data_home() / run_name(experiment)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'folder = "{path}" (run config): cannot be made ({error.strerror}); choose another'
        ) from None
    resolved = path / EXPERIMENT
    if not resolved.exists():
        write_durably(resolved, config.to_toml(experiment).encode())
    elif config.digest(config.load(resolved)) != config.digest(experiment):
        raise UserError(
            f'folder = "{path}" (run config): holds a run with other settings; name another folder for this one'
        )
    return path
