"""Checkpoints: the federation's weights and its own account of itself, written so that no crash tears them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from fedunlearn.errors import RunError

META = "fedunlearn"
_PARAMETERS = "parameters"
_BUFFERS = "buffers/"


@dataclass(frozen=True)
class Snapshot:
    """A federation after a round.

    Attributes
    ----------
    round : int
        Rounds completed; 0 is the initial model.
    vector : Tensor
        The global parameters, shape ``(num_parameters,)``.
    buffers : Mapping[str, Tensor]
        The global buffers.
    meta : Mapping
        JSON-able account, the progress of forget requests above all. It lives in the same file as the weights,
        so that weights and account are never of different rounds. Nothing in it may depend on the clock.
    """

    round: int
    vector: Tensor
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that after a crash it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class Checkpoints:
    """The checkpoints of one branch: ``<folder>/<branch>-r0031.safetensors`` and a readable ``.json`` beside it.

    Parameters
    ----------
    folder
        Made if it is not there. Branches share it.
    branch
        Name of the federation.
    keep
        Which rounds to keep for good; of the others only the latest is kept. Default: all.
    """

    def __init__(self, folder: Path, branch: str, keep: Callable[[int], bool] = lambda _: True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._branch = branch
        self._keep = keep
        self._passing: set[int] | None = None  # rounds on the disk that are not to stay, once looked up
        self._pattern = re.compile(re.escape(branch) + r"-r(\d{4,})\.safetensors")

    def path(self, round: int) -> Path:
        """Return where the checkpoint of a round is or would be."""
        return self._folder / f"{self._branch}-r{round:04d}.safetensors"

    def rounds(self) -> list[int]:
        """Return the rounds that have a checkpoint, ascending."""
        found = (self._pattern.fullmatch(p.name) for p in self._folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def save(self, snapshot: Snapshot) -> None:
        """Write a checkpoint durably, then drop earlier ones that need not be kept."""
        tensors = {_PARAMETERS: snapshot.vector}
        tensors |= {_BUFFERS + name: value for name, value in snapshot.buffers.items()}
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        account = {"round": snapshot.round, **snapshot.meta}
        # One metadata key only: safetensors does not fix the order of several, and checkpoints of equal
        # content must be equal byte for byte.
        text = json.dumps(account, sort_keys=True)
        content = save(tensors, metadata={META: text})
        path = self.path(snapshot.round)
        if self._passing is None:  # one look into the folder, which all branches share, and not one a round
            self._passing = {round for round in self.rounds() if not self._keep(round)}
        write_durably(path, content)
        # The readable copy is a convenience, never read back: it may lag behind by one crash.
        readable = {**account, "sha256": hashlib.sha256(content).hexdigest()}
        temporary = path.with_name(f".{path.stem}.json.tmp")
        temporary.write_text(json.dumps(readable, sort_keys=True, indent=1) + "\n")
        temporary.replace(path.with_suffix(".json"))
        for round in sorted(round for round in self._passing if round < snapshot.round):
            self.delete(round)
        if not self._keep(snapshot.round):
            self._passing.add(snapshot.round)

    def load(self, round: int) -> Snapshot:
        """Read a checkpoint.

        Raises
        ------
        FileNotFoundError
            If there is none of that round.
        RunError
            If the file is damaged.
        """
        path = self.path(round)
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise RunError(
                f"{path}: is damaged ({error}); delete the run directory, or add --fresh"
            ) from error
        account = json.loads(_metadata(path)[META])
        buffers = {n.removeprefix(_BUFFERS): t for n, t in tensors.items() if n.startswith(_BUFFERS)}
        return Snapshot(account.pop("round"), tensors[_PARAMETERS], buffers, account)

    def latest(self) -> Snapshot | None:
        """Read the checkpoint of the highest round, or return None if there is none."""
        rounds = self.rounds()
        return self.load(rounds[-1]) if rounds else None

    def delete(self, round: int) -> None:
        """Remove a checkpoint and its readable copy, if they are there."""
        if self._passing is not None:
            self._passing.discard(round)
        self.path(round).unlink(missing_ok=True)
        self.path(round).with_suffix(".json").unlink(missing_ok=True)


def _metadata(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    return dict(header.get("__metadata__", {}))


def weights_hash(vector: Tensor, buffers: Mapping[str, Tensor] | None = None) -> str:
    """Return the SHA-256 of a model's raw weights and buffers, independent of any file format."""
    digest = hashlib.sha256()
    for tensor in [vector, *(value for _, value in sorted((buffers or {}).items()))]:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
