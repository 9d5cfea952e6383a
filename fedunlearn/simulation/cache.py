"""The content-addressed cache: a branch that was computed once is never computed again.

The key of a branch covers everything that its bits depend on: the data and their partition, the initial weights,
training settings, what is forgotten and when, the method, what it forks from, the recovery rule, numerics
(threads, dtype, device class, torch version, processor type) and the source that computes it, the engine's and each
component's, whatever package it is in. What changes no bit (workers, engine, output folder) is not in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedunlearn import workspace
from fedunlearn.config import Experiment
from fedunlearn.config.augmentation import steps_of
from fedunlearn.config.toml_tree import plain
from fedunlearn.runs.directory import RunDirectory
from fedunlearn.runs.metrics_log import Metric
from fedunlearn.runs.sealed import are_as_noted, discard, hash_of, read_sealed, write_sealed
from fedunlearn.server.branch import Branch
from fedunlearn.simulation import histories
from fedunlearn.simulation.schedule import never_forgot
from fedunlearn.simulation.source_hash import UNKNOWN, component_source, source_of

ENGINE = (
    "fedunlearn.server.serve",
    "fedunlearn.clients.app",
    "fedunlearn.federation.worker",
    "fedunlearn.simulation.branches",
    "fedunlearn.runs.metrics_log",
    "fedunlearn.runs.round_metrics",
)
"""What computes any branch, with all that it imports; components are found by name, and are no part of it."""
CONDUCTOR = "fedunlearn.simulation.runner"
"""What gives a branch its fork and its references; what else it imports only shows or measures."""


def digest_of(content: Any) -> str:
    """Return the SHA-256 of plain JSON content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def numerics(experiment: Experiment) -> dict[str, Any]:
    """Return what decides the bits of a computation besides its inputs and its source."""
    device = workspace.device_of(experiment)
    found: dict[str, Any] = {
        "numerics": experiment.numerics,
        "precision": experiment.engine.precision,
        "batch_clients": experiment.engine.batch_clients,
        "compile": experiment.engine.compile,
        "threads": experiment.engine.threads_per_client,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    if experiment.engine.channels_last:
        found["channels_last"] = True
    if experiment.data.augmentation != "none":
        found["torchvision"] = version("torchvision")
    if experiment.data.task == "segmentation":
        found["monai"] = version("monai")  # network, loss and Dice
    return found


def _processor() -> str:
    # The instruction set decides which kernels run and in what order they add.
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


HISTORY = "branch.json"
"""Of an entry: what became of the branch, and the hashes of its files."""
KEPT = "history"
"""Folder of an entry for what the branch keeps of its rounds for methods that fork from it."""
NEVER = "never-"
"""How the key of a branch begins that is not cached, because nobody knows what computed it."""


def branch_key(
    experiment: Experiment, branch: Branch, keys: Mapping[str, str], *, data_hash: str, weights_hash: str
) -> str:
    """Return a branch's key.

    Parameters
    ----------
    keys
        Keys of the branches before it, by name: of those it forks from and is judged by.
    data_hash
        ``FederatedData.content_hash``: data and partition.
    weights_hash
        Hash of the initial weights.
    """
    sources = sources_of(experiment, branch)
    # The label is a name for the reader; two labels of the same settings are one computation.
    method = replace(branch.method, given_label=None) if branch.method else None
    named = {
        *branch.excluded,
        *branch.forget,
        *branch.watched,
        *(k for r in branch.requests for k in r.clients),
    }
    parts = [experiment.parts[n].to_dict() for n in sorted(named) if n in experiment.parts]
    # Parts are drawn by the experiment's seed; without any, a key is what it was.
    of_parts: dict[str, Any] = {"parts": [branch.seed, parts]} if parts else {}
    if workspace.has_filter_slot(experiment):
        of_parts["filtered"] = True  # its checkpoints have a buffer more
    # The stored data are the same, whatever becomes of them in training; without any, a key is what it was.
    augmented, kept = experiment.data.augmentation, histories.kept_for(experiment, branch)
    of_augmentation = {} if augmented == "none" else {"augmentation": augmented}
    key = digest_of(
        of_parts
        | of_augmentation
        | {
            "data": data_hash,
            "model": plain(experiment.model),
            "weights": weights_hash,
            "train": asdict(experiment.train),
            "federation": asdict(experiment.federation),
            "recover": asdict(experiment.recover) if branch.requests else None,
            "kind": "oracle" if branch.kind in ("retrain", "floor") else branch.kind,
            "training_seed": branch.training_seed,
            "excluded": branch.excluded,
            "forget": [branch.forget, branch.watched],
            "requests": [[r.id, r.clients, r.at_round] for r in branch.requests],
            "method": plain(method) if method else None,
            "fork": [keys[branch.fork_from], branch.first_round] if branch.fork_from else None,
            "oracles": [keys[name] for name in branch.oracles],
            "last_round": branch.last_round,
            "keep": [branch.keep_from, sorted(branch.keep)],
            "numerics": numerics(experiment),
            "source": sources,
        }
        | ({"history": [asdict(keeps) for keeps in kept]} if kept else {})
    )
    return f"{NEVER}{key}" if any(source.startswith(UNKNOWN) for source in sources.values()) else key


def sources_of(experiment: Experiment, branch: Branch) -> dict[str, str]:
    """Return the hashes of the source that computes a branch: the engine's, and each of its components'."""
    data = experiment.data
    used = [
        ("strategies", branch.method.name if branch.method else "retrain"),
        ("models", experiment.model.name),
        ("tasks", data.task),
        ("data", data.source),
        ("partitions", data.partition),
        *(("augmentations", step) for step in steps_of(data.augmentation)),
    ]
    if branch.method and branch.method.routine is not None:
        used.append(("routines", branch.method.routine))
    found = {f"{kind}: {name}": component_source(kind, name) for kind, name in used}
    return found | {"engine": source_of(*ENGINE, alone=(CONDUCTOR,))}


class Cache:
    """Finished branches and measures on disk, by key. Safe against crashes and against parallel writers.

    An entry that is damaged, or that cannot be read, counts as missing: its files have their SHA-256 noted, and are
    compared each time. Files are linked into runs where that is possible; nobody writes into one in place, and who
    does it all the same has made the entry a damaged one.

    Parameters
    ----------
    folder
        Made when first written to.
    note
        Told in a line, once, that nothing can be kept.
    """

    def __init__(self, folder: Path, note: Callable[[str], None] = lambda _: None) -> None:
        self._folder = folder
        self._note = note
        self._told = False

    def _entry(self, kind: str, key: str) -> Path:
        return self._folder / kind / key[:2] / key

    def store_branch(self, key: str, run: RunDirectory, name: str, outcome: Mapping[str, Any]) -> None:
        """Copy a finished branch and its outcome from a run; nobody ever sees half of it.

        One whose forgetting failed is left out: what it failed for may be gone the next time.
        """
        entry = self._entry("branches", key)
        if key.startswith(NEVER) or any(map(never_forgot, outcome.get("requests", ()))):
            return
        if self._history(entry) is not None:
            return
        discard(entry)  # damaged, or nothing
        with self._telling():
            entry.parent.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(dir=entry.parent, prefix=".staging-"))
            try:
                self._fill(staging, run, name, outcome)
                staging.rename(entry)  # unless another process was first; its content is the same
            except OSError:
                shutil.rmtree(staging, ignore_errors=True)
                if not entry.exists():
                    raise

    def _fill(self, staging: Path, run: RunDirectory, name: str, outcome: Mapping[str, Any]) -> None:
        checkpoints = run.checkpoints(name)
        hashes = {}
        for round in checkpoints.rounds():
            for source in (checkpoints.path(round), checkpoints.path(round).with_suffix(".json")):
                if source.exists():
                    copy = staging / source.name.removeprefix(name)
                    _link(source, copy)
                    hashes[copy.name] = hash_of(copy)
        for source in histories.files_of(name, run):
            copy = staging / KEPT / source.relative_to(run.history(name))
            copy.parent.mkdir(parents=True, exist_ok=True)
            _link(source, copy)
            hashes[copy.relative_to(staging).as_posix()] = hash_of(copy)
        history = {
            "outcome": dict(outcome),
            "metrics": [asdict(m) for m in run.metrics.of(name).values()],
            "ledger": run.ledger.export(name),
            "files": hashes,
        }
        write_sealed(staging / HISTORY, history)

    def load_branch(self, key: str, run: RunDirectory, branch: Branch) -> dict[str, Any] | None:
        """Put a cached branch into a run under its name there, and return its outcome; None if it is not there."""
        entry = self._entry("branches", key)
        history = self._history(entry)
        if history is None:
            return None
        folder = run.path / "checkpoints"
        checkpoints = run.checkpoints(branch.name)
        for round in checkpoints.rounds():  # of a computation that was interrupted
            checkpoints.delete(round)
        histories.discard(branch.name, run)
        for name in history["files"]:
            target = folder / f"{branch.name}{name}"
            if name.startswith(f"{KEPT}/"):
                target = run.history(branch.name) / name.removeprefix(f"{KEPT}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            _link(entry / name, target)
        run.metrics.append(replace(Metric(**m), branch=branch.name) for m in history["metrics"])
        run.ledger.load(branch.name, history["ledger"])
        outcome: dict[str, Any] = history["outcome"]
        return outcome

    @staticmethod
    def _history(entry: Path) -> dict[str, Any] | None:
        """Return what an entry says, if it and all of its files are whole."""
        history: dict[str, Any] | None = read_sealed(entry / HISTORY)
        return history if history is not None and are_as_noted(entry, history["files"]) else None

    def measures(self, key: str) -> Any | None:
        """Return stored measures; None if they are not there, or damaged."""
        return read_sealed(self._entry("measures", key).with_suffix(".json"))

    def store_measures(self, key: str, measures: Any) -> None:
        """Store measures under a key."""
        path = self._entry("measures", key).with_suffix(".json")
        with self._telling():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Under a name of this process first: another one may be storing the same measures.
            own = path.with_name(f"{key}.{os.getpid()}")
            write_sealed(own, measures)
            if path.is_dir():
                discard(path)
            own.replace(path)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Say once that something could not be kept, and go on: the run has it."""
        try:
            yield
        except OSError as error:
            if not self._told:
                reason = (error.strerror or type(error).__name__).lower()
                self._note(f"cache {self._folder}: cannot be written ({reason}); results are not cached")
            self._told = True


def _link(source: Path, target: Path) -> None:
    """Hard-link a file that nobody changes in place; copy where links are not to be had."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
