"""What a server keeps of earlier rounds, for methods that forget by it: clients' results, and models.

A store is a folder: ``round-000012/client-3@000012.safetensors`` is what client 3 came to in round 12, written in
round 12, and ``model@000012.safetensors`` beside it are the weights that this round started from. A result that is
replaced later gets a file of its own, ``client-3@000040.safetensors``, so that what a round has written counts from
that round's checkpoint on, and an earlier checkpoint still finds what there was then.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from math import ceil
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fedunlearn.durable import sync_folder, write_synced
from fedunlearn.errors import RunError
from fedunlearn.federation.sums import Contribution
from fedunlearn.json_text import JsonError, loads_object
from fedunlearn.models.state import ModelState
from fedunlearn.runs.checkpoints import META
from fedunlearn.runs.history_files import HistoryFile

Which = Literal["last", "all"]
What = Literal["updates", "weights"]

_TENSOR = "vector"
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype for dtype in (torch.float64, torch.float32, torch.bfloat16)
}

_Account = Mapping[str, Any]
"""What a file says of itself: ``client`` (null: the model), ``round``, ``num_examples``, ``dtype``."""


@dataclass(frozen=True)
class Keeps:
    """What of ordinary rounds is kept; of rounds that forget somebody nothing is.

    Attributes
    ----------
    which : str
        Of each client the ``last`` result, or ``all`` of the rounds that are kept.
    what : str
        ``updates`` w_k − w, or the ``weights`` w_k that a client came to.
    models : bool
        Whether the global weights that each kept round started from are kept as well.
    every : int
        Rounds 1, 1 + every, 1 + 2·every, … are kept.
    half : bool
        Whether as float16, in half of the space; what is read back has the model's type again. A tensor that has
        values beyond float16's range is kept whole.
    """

    which: Which = "all"
    what: What = "updates"
    models: bool = False
    every: int = 1
    half: bool = False

    def keeps(self, round: int) -> bool:
        """Whether a round is kept."""
        return (round - 1) % self.every == 0

    @property
    def name(self) -> str:
        """A name that no other one has, such as ``all-updates-every-5``."""
        words = [self.which, self.what, *["models"] * self.models, *["half"] * self.half]
        return "-".join([*words, *[f"every-{self.every}"] * (self.every > 1)])

    def num_bytes(self, rounds: int, participants: int, num_clients: int, num_parameters: int) -> int:
        """Return how many bytes so many rounds with so many participants each take, at float32 or float16."""
        kept = ceil(rounds / self.every)
        if self.which == "last":
            results, models = min(num_clients, kept * participants), min(num_clients, kept)
        else:
            results, models = kept * participants, kept
        return (2 if self.half else 4) * num_parameters * (results + models * self.models)


_Index = dict[tuple[int, int | None], tuple["History", HistoryFile]]
"""(round, client or None for the model) → the store that has what counts of it, and which version."""


class History:
    """Clients' results by (round, client), and where asked for the global weights by round.

    Parameters
    ----------
    keeps
        None: nothing is kept.
    folder
        Where; made when something is kept. None: in memory.
    base, base_round
        The history of the federation that this one forks from after ``base_round``, read and never written.
    forks
        Rounds that other federations fork from after: of ``last`` results, those that were the last then stay.
    """

    def __init__(
        self,
        keeps: Keeps | None = None,
        folder: Path | None = None,
        *,
        base: History | None = None,
        base_round: int = 0,
        forks: Iterable[int] = (),
    ) -> None:
        self.keeps = keeps
        self._folder = folder
        self._base = base
        self._base_round = base_round
        self._forks = frozenset(forks)
        self._memory: dict[HistoryFile, tuple[_Account, Tensor]] = {}
        self._index: _Index | None = None
        self._staged: dict[HistoryFile, Path | tuple[_Account, Tensor]] = {}
        self._void: Set[HistoryFile] = frozenset()
        self._now = base_round
        self.device: torch.device | str = "cpu"

    # -- what there is ------------------------------------------------------------------------------------

    def keeps_round(self, round: int) -> bool:
        """Whether an ordinary round of this number is kept."""
        return self.keeps is not None and self.keeps.keeps(round)

    def rounds(self) -> tuple[int, ...]:
        """Return the rounds of which results are kept, ascending."""
        return tuple(sorted({round for round, client in self._newest() if client is not None}))

    def clients(self, round: int) -> tuple[int, ...]:
        """Return the clients whose results of a round are kept, ascending."""
        return tuple(sorted(k for of, k in self._newest() if of == round and k is not None))

    def last(self, client: int) -> int | None:
        """Return the latest round of which a client's result is kept; None: there is none."""
        return max((round for round, k in self._newest() if k == client), default=None)

    def result(self, round: int, client: int) -> Contribution:
        """Return what is kept of a client's round; ``delta`` is its update, or its weights, as ``keeps`` says.

        Raises
        ------
        RunError
            It is missing or damaged: with one line that says what to do.
        """
        account, vector = self._read(round, client)
        return Contribution(client, account["num_examples"], vector)

    def num_examples(self, round: int, client: int) -> int:
        """Return n_k of what is kept of a client's round, without reading the rest; RunError as of :meth:`result`."""
        store, kept = self._found(round, client)
        if store._folder is None:
            return int(store._memory[kept][0]["num_examples"])
        return int(_opened(store._path(kept), kept, vector=False)[0]["num_examples"])

    def model(self, round: int) -> Tensor:
        """Return the global weights that a kept round started from, shape ``(num_parameters,)``.

        Raises
        ------
        RunError
            They are missing or damaged.
        """
        return self._read(round, None)[1]

    # -- what is written ----------------------------------------------------------------------------------

    def begin(self, round: int, device: torch.device | str = "cpu") -> None:
        """Say which round is at hand, and on which device results are wanted."""
        self._now, self.device, self._index = round, device, None

    def record(self, model: ModelState, updates: Iterable[Contribution], start: Tensor | None = None) -> None:
        """Prepare to keep the results of the round at hand, an ordinary one, as ``keeps`` says.

        Parameters
        ----------
        model
            What the round started from.
        start
            The weights that the updates are measured from. Default: the model's.
        """
        if not self.keeps_round(self._now):
            return
        assert self.keeps is not None
        w = model.vector if start is None else start
        for update in updates:
            vector = update.delta if self.keeps.what == "updates" else w + update.delta
            self._stage(HistoryFile(self._now, update.client, self._now), vector, update.num_examples)
        if self.keeps.models:
            self._stage(HistoryFile(self._now, None, self._now), model.vector, 0)

    def replace(self, round: int, result: Contribution) -> None:
        """Prepare to put a result in the place of what is kept of a client's round, once the one at hand is over."""
        self._stage(HistoryFile(round, result.client, self._now), result.delta, result.num_examples)

    @property
    def prepared(self) -> dict[str, Path]:
        """What was prepared on a disk: ``<store>/round-…/…``, as it will be called, → where it lies until then."""
        store = "" if self._folder is None else self._folder.name
        files = {kept: staged for kept, staged in self._staged.items() if isinstance(staged, Path)}
        return {f"{store}/{kept.place}": staged for kept, staged in files.items()}

    def publish(self) -> None:
        """Keep what was prepared; a live federation's server does that while nobody can take over."""
        for kept, staged in self._staged.items():
            if isinstance(staged, Path):
                staged.replace(self._path(kept))
            else:
                self._memory[kept] = staged
        for folder in {staged.parent for staged in self._staged.values() if isinstance(staged, Path)}:
            sync_folder(folder)
        self._staged, self._index = {}, None

    def restore(self, round: int, *, taken_back: int | None = None) -> None:
        """Go on from the checkpoint of a round: whatever was prepared, or written later, is gone.

        Parameters
        ----------
        taken_back
            As in :meth:`take_back`, where that round took an unlearning back.
        """
        self._staged = {}
        if self._folder is not None:
            for left in self._folder.glob("round-*/.*.tmp"):
                left.unlink(missing_ok=True)
        void = range(round if taken_back is None else taken_back + 1, round)
        self._drop(kept for kept in self._everything() if kept.written > round or kept.written in void)
        self._now = round

    def take_back(self, round: int) -> None:
        """Return to what there was after a round; files are deleted once that is saved, by :meth:`settle`."""
        for staged in self._staged.values():
            if isinstance(staged, Path):
                staged.unlink(missing_ok=True)
        self._staged, self._index = {}, None
        self._void = {kept for kept in self._everything() if kept.written > round}

    def settle(self, *, under_way: bool = False) -> None:
        """Drop what nobody comes back to, now that the round at hand is saved.

        Parameters
        ----------
        under_way
            Whether an unlearning of several rounds is, which may be taken back.
        """
        if self.keeps is None:
            return
        self._drop(self._void)
        self._void = frozenset()
        if under_way:
            return
        newest: dict[tuple[int, int | None], int] = {}
        for kept in self._all():
            at = kept.round, kept.client
            newest[at] = max(kept.written, newest.get(at, 0))
        stale = {kept for kept in self._all() if kept.written < newest[kept.round, kept.client]}
        if self.keeps.which == "last":
            stale |= self._superseded()
        self._drop(stale)

    def forget(self, client: int) -> None:
        """Delete all that is kept of a client."""
        self._drop(kept for kept in self._everything() if kept.client == client)

    # -- how ----------------------------------------------------------------------------------------------

    def _superseded(self) -> set[HistoryFile]:
        """Return the results that are not their client's last, neither now nor at a fork, and models without any."""
        found, needed = self._all(), set[HistoryFile]()
        for at in {self._now, *(fork for fork in self._forks if fork <= self._now)}:
            last: dict[int, HistoryFile] = {}
            for kept in sorted(found, key=lambda k: (k.round, k.written)):
                if kept.client is not None and kept.round <= at:
                    last[kept.client] = kept
            needed.update(last.values())
        rounds = {kept.round for kept in needed}
        return {k for k in found if k not in needed and (k.client is not None or k.round not in rounds)}

    def _newest(self) -> _Index:
        """Return where what counts of each (round, client) is kept."""
        if self._index is None:
            found: _Index = {}
            if self._base is not None:
                earlier = [kept for kept in self._base._all() if kept.written <= self._base_round]
                for kept in sorted(earlier, key=attrgetter("written")):
                    found[kept.round, kept.client] = self._base, kept
            for kept in sorted(self._all(), key=attrgetter("written")):
                found[kept.round, kept.client] = self, kept
            self._index = _last_of(found) if self.keeps is not None and self.keeps.which == "last" else found
        return self._index

    def _all(self) -> list[HistoryFile]:
        """Return everything in this store that was not taken back, whatever the version."""
        return [kept for kept in self._everything() if kept not in self._void]

    def _everything(self) -> list[HistoryFile]:
        if self._folder is None:
            return list(self._memory)
        found = (HistoryFile.of(path) for path in self._folder.glob("round-*/*"))
        return [kept for kept in found if kept is not None]

    def _path(self, kept: HistoryFile) -> Path:
        assert self._folder is not None
        return self._folder / kept.place

    def _stage(self, kept: HistoryFile, vector: Tensor, num_examples: int) -> None:
        assert self.keeps is not None
        dtype = str(vector.dtype).removeprefix("torch.")
        account = {"client": kept.client, "round": kept.round, "num_examples": num_examples, "dtype": dtype}
        vector = vector.detach().cpu().contiguous()
        if self.keeps.half and bool(torch.isfinite(half := vector.to(torch.float16)).all()):
            vector = half
        if self._folder is None:
            self._staged[kept] = account, vector.clone()
            return
        folder = self._path(kept).parent
        if not folder.is_dir():
            self._folder.mkdir(parents=True, exist_ok=True)
            sync_folder(self._folder.parent)
            folder.mkdir()
            sync_folder(self._folder)
        # No two processes ever write to one such file.
        self._staged[kept] = temporary = folder / f".{self._path(kept).name}.{secrets.token_hex(8)}.tmp"
        write_synced(temporary, save({_TENSOR: vector}, metadata={META: json.dumps(account, sort_keys=True)}))

    def _drop(self, kept: Iterable[HistoryFile]) -> None:
        self._index = None
        for each in list(kept):
            if self._folder is None:
                del self._memory[each]
                continue
            path = self._path(each)
            path.unlink(missing_ok=True)
            if not any(path.parent.iterdir()):
                path.parent.rmdir()

    def _read(self, round: int, client: int | None) -> tuple[_Account, Tensor]:
        store, kept = self._found(round, client)
        account, vector = store._memory[kept] if store._folder is None else _opened(store._path(kept), kept)
        return account, vector.to(self.device, _DTYPES[account["dtype"]], copy=True)

    def _found(self, round: int, client: int | None) -> tuple[History, HistoryFile]:
        found = self._newest().get((round, client))
        if found is None:
            whose = "the model" if client is None else f"client {client}"
            where = "" if self._folder is None else f" {self._folder}"
            raise RunError(f"history{where}: nothing is kept of {whose} in round {round}")
        return found


def _last_of(found: _Index) -> _Index:
    """Return each client's last result alone, and the models of their rounds."""
    last: dict[int, int] = {}
    for round, client in found:
        if client is not None:
            last[client] = max(round, last.get(client, 0))
    rounds = set(last.values())
    return {
        (round, client): where
        for (round, client), where in found.items()
        if (round in rounds if client is None else last[client] == round)
    }


def _opened(path: Path, kept: HistoryFile, *, vector: bool = True) -> tuple[_Account, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            account = loads_object((file.metadata() or {}).get(META, ""), "its account")
            if (
                account.keys() != {"client", "round", "num_examples", "dtype"}
                or account["dtype"] not in _DTYPES
            ):
                raise JsonError("its account is none of a history")
            if (account["round"], account["client"]) != (kept.round, kept.client):
                raise JsonError("its account is of another round or client")
            return account, file.get_tensor(_TENSOR) if vector else torch.empty(0)
    except FileNotFoundError:
        raise RunError(
            f"{path}: is missing, and the method forgets by it; restore it from a backup"
        ) from None
    except (SafetensorError, JsonError, OSError) as error:
        raise RunError(f"{path}: is damaged ({error}); restore it from a backup") from error
