"""Checkpoints: the federation's weights and its own account of itself, written so that no crash tears them."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from fedunlearn.durable import move_durably, write_durably, write_synced
from fedunlearn.errors import RunError, naming
from fedunlearn.json_text import loads_object
from fedunlearn.requests.records import LIVE_BRANCH

META = "fedunlearn"
_PARAMETERS = "parameters"
_BUFFERS = "buffers/"
_STATE = "strategy/"
_BEFORE = "before/"


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
    state : Mapping[str, Tensor]
        Tensors of the strategy's own.
    before : Snapshot or None
        In the middle of an unlearning of several rounds: the federation before it, as it will be again if that fails.
    """

    round: int
    vector: Tensor
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Tensor] = field(default_factory=dict)
    before: Snapshot | None = None


@dataclass(frozen=True)
class Prepared:
    """A checkpoint that is on the disk under a name of its own and counts for nothing yet.

    Attributes
    ----------
    path : Path
        Where :meth:`Checkpoints.publish` will put it.
    temporary : Path
        Where it is. No two processes ever write to one such file.
    account : Mapping
        What the readable copy is to say.
    """

    round: int
    path: Path
    temporary: Path
    account: Mapping[str, Any]


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
        account, content = self._encoded(snapshot)
        self._note_passing()
        write_durably(self.path(snapshot.round), content)
        self._saved(snapshot.round, account)

    def prepare(self, snapshot: Snapshot) -> Prepared:
        """Write what takes time of a checkpoint, without making it one: :meth:`publish` does.

        A live federation's server publishes only while it holds the ledger, where nothing slow belongs.
        """
        account, content = self._encoded(snapshot)
        path = self.path(snapshot.round)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        write_synced(temporary, content)
        return Prepared(snapshot.round, path, temporary, account)

    def publish(self, prepared: Prepared) -> None:
        """Make a prepared checkpoint the one of its round, durably, then drop what need not be kept."""
        self._note_passing()
        move_durably(prepared.temporary, prepared.path)
        self._saved(prepared.round, prepared.account)

    def sweep(self) -> None:
        """Remove what was prepared by a process that died before it published."""
        for left in self._folder.glob(f".{self._branch}-r*.tmp"):
            left.unlink(missing_ok=True)

    def _encoded(self, snapshot: Snapshot) -> tuple[dict[str, Any], bytes]:
        """Return what the readable copy says, and the checkpoint's bytes."""
        tensors, account = _named_tensors(snapshot), {"round": snapshot.round, **snapshot.meta}
        if (before := snapshot.before) is not None:
            tensors |= {_BEFORE + name: value for name, value in _named_tensors(before).items()}
            account["before"] = {"round": before.round, **before.meta}
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        # One metadata key only: safetensors does not fix the order of several, and checkpoints of equal
        # content must be equal byte for byte.
        text = json.dumps(account, sort_keys=True)
        content = save(tensors, metadata={META: text})
        return {**account, "sha256": hashlib.sha256(content).hexdigest()}, content

    def _note_passing(self) -> None:
        if self._passing is None:  # one look into the folder, which all branches share, and not one a round
            self._passing = {round for round in self.rounds() if not self._keep(round)}

    def _saved(self, round: int, readable: Mapping[str, Any]) -> None:
        """Write the readable copy of a round's checkpoint, and drop earlier ones."""
        path = self.path(round)
        # A convenience, never read back: it may lag behind by one crash.
        temporary = path.with_name(f".{path.stem}.json.tmp")
        with naming(temporary):
            temporary.write_bytes(readable_copy(readable))
        temporary.replace(path.with_suffix(".json"))
        assert self._passing is not None
        for earlier in sorted(earlier for earlier in self._passing if earlier < round):
            self.delete(earlier)
        if not self._keep(round):
            self._passing.add(round)

    def load(self, round: int) -> Snapshot:
        """Read a checkpoint.

        Raises
        ------
        RunError
            If there is none of that round, or the file is damaged.
        """
        path = self.path(round)
        # A live federation's run directory holds what people asked for: nobody is told to delete that.
        live = self._branch == LIVE_BRANCH
        remedy = "restore it from a backup" if live else "delete the run directory, or add --fresh"
        if not path.is_file():
            raise RunError(f"{path}: is missing; {remedy}")
        try:
            tensors, account = load_file(path), account_of(path)
            if account.pop("round", None) != round:
                raise ValueError(f"its account is not of round {round}")
            if _PARAMETERS not in tensors:
                raise ValueError(f"holds no {_PARAMETERS}")
            before = _before(account, tensors)
        except (SafetensorError, ValueError) as error:
            raise RunError(f"{path}: is damaged ({error}); {remedy}") from error
        return _snapshot(round, account, tensors, before)

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


def _named_tensors(snapshot: Snapshot) -> dict[str, Tensor]:
    """Return a federation's tensors under the names that they have in a file."""
    return {
        _PARAMETERS: snapshot.vector,
        **{_BUFFERS + name: value for name, value in snapshot.buffers.items()},
        **{_STATE + name: value for name, value in snapshot.state.items()},
    }


def _snapshot(
    round: int, meta: Mapping[str, Any], tensors: Mapping[str, Tensor], before: Snapshot | None = None
) -> Snapshot:
    """Inverse of :func:`_named_tensors`."""
    buffers = {n.removeprefix(_BUFFERS): t for n, t in tensors.items() if n.startswith(_BUFFERS)}
    state = {n.removeprefix(_STATE): t for n, t in tensors.items() if n.startswith(_STATE)}
    return Snapshot(round, tensors[_PARAMETERS], buffers, meta, state, before)


def _before(account: dict[str, Any], tensors: Mapping[str, Tensor]) -> Snapshot | None:
    """Take the federation before an unlearning out of an account; None: there is none in it.

    Raises
    ------
    ValueError
        It is not whole. One line.
    """
    meta = account.pop("before", None)
    if meta is None:
        return None
    own = {n.removeprefix(_BEFORE): t for n, t in tensors.items() if n.startswith(_BEFORE)}
    if _PARAMETERS not in own or not isinstance(meta, dict) or not isinstance(meta.get("round"), int):
        raise ValueError(f"holds no {_BEFORE}{_PARAMETERS}")
    return _snapshot(meta.pop("round"), meta, own)


def account_of(path: Path) -> dict[str, Any]:
    """Read a checkpoint's account from its header, without its weights.

    Raises
    ------
    ValueError
        There is none. One line.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError("its header is torn")
        header = loads_object(file.read(length), "its header")
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or not isinstance(metadata.get(META), str):
        raise ValueError(f"its header lacks the account of {META}")
    return loads_object(metadata[META], "its account", allow_nan=True)  # a loss of a model that has diverged


def readable_copy(account: Mapping[str, Any]) -> bytes:
    """Return what stands in the readable copy beside a checkpoint.

    Parameters
    ----------
    account
        The checkpoint's own, and ``sha256`` (hex) of its file.
    """
    return (json.dumps(account, sort_keys=True, indent=1) + "\n").encode()


def weights_hash(vector: Tensor, buffers: Mapping[str, Tensor] | None = None) -> str:
    """Return the SHA-256 of a model's raw weights and buffers, independent of any file format."""
    digest = hashlib.sha256()
    for tensor in [vector, *(value for _, value in sorted((buffers or {}).items()))]:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
