"""Every client's last update, kept at the server: to forget a client that cannot be reached any more."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fedunlearn.durable import write_durably
from fedunlearn.errors import RunError
from fedunlearn.federation.sums import Contribution
from fedunlearn.json_text import JsonError, loads_object
from fedunlearn.runs.checkpoints import META

FOLDER = "stored"
_NAME = re.compile(r"client-(\d+)\.safetensors")
_DELTA = "delta"


class StoredUpdates:
    """``<folder>/client-<number>.safetensors``: the last pseudo-gradient of each client, and of which round it is.

    Parameters
    ----------
    folder
        Made when something is stored.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, client: int) -> Path:
        """Return where a client's update is or would be."""
        return self._folder / f"client-{client}.safetensors"

    def keep(self, round: int, updates: Iterable[Contribution]) -> None:
        """Store a round's updates durably, each in the place of the client's earlier one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for update in updates:
            account = {"client": update.client, "round": round, "num_examples": update.num_examples}
            tensors = {_DELTA: update.delta.detach().cpu().contiguous()}
            content = save(tensors, metadata={META: json.dumps(account, sort_keys=True)})
            write_durably(self.path(update.client), content)

    def rounds(self) -> dict[int, int]:
        """Return client → round of the update that is stored of it."""
        if not self._folder.is_dir():
            return {}
        found = (_NAME.fullmatch(path.name) for path in self._folder.iterdir())
        clients = sorted(int(match[1]) for match in found if match)
        return {client: self._read(client)[0]["round"] for client in clients}

    def load(self, client: int, round: int, like: Tensor) -> Contribution:
        """Return a client's stored update, on the device of ``like``.

        Raises
        ------
        RunError
            If there is none, it is damaged, or it is not of this round: the plan that names it cannot be executed.
        """
        try:
            account, delta = self._read(client)
        except FileNotFoundError:
            raise RunError(
                f"{self.path(client)}: is missing, but the round's plan forgets client {client} with it; "
                "restore it from a backup"
            ) from None
        if account["round"] != round or delta.shape != like.shape:
            raise RunError(
                f"{self.path(client)}: is of round {account['round']} and shape {tuple(delta.shape)}, but the plan "
                f"needs round {round} and shape {tuple(like.shape)}: does it belong to this run?"
            )
        return Contribution(client, account["num_examples"], delta.to(like.device))

    def _read(self, client: int) -> tuple[Mapping[str, int], Tensor]:
        path = self.path(client)
        if not path.is_file():
            raise FileNotFoundError(path)
        try:
            with safe_open(path, framework="pt") as file:
                account = loads_object((file.metadata() or {}).get(META, ""), "its account")
                missing = {"client", "round", "num_examples"} - account.keys()
                if missing:
                    raise JsonError(f"its account lacks {', '.join(sorted(missing))}")
                return account, file.get_tensor(_DELTA)
        except (SafetensorError, JsonError) as error:
            raise RunError(f"{path}: is damaged ({error}); restore it from a backup") from error
