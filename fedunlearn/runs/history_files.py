"""The files in which a run keeps earlier rounds: what a name says, of which round and client, and written when.

``history/<branch>/<store>/round-000012/client-3@000040.safetensors`` is what client 3 came to in round 12, as round
40 has left it; ``model@000012.safetensors`` beside it are the weights that round 12 started from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

HISTORY = "history"

_FILE = re.compile(r"(?:client-(\d+)|model)@(\d{6,})\.safetensors")
_ROUND = re.compile(r"round-(\d{6,})")


@dataclass(frozen=True)
class HistoryFile:
    """One file: of which round and client (None: the model), and written in which round."""

    round: int
    client: int | None
    written: int

    @classmethod
    def of(cls, path: Path) -> HistoryFile | None:
        """Return what a file is by its name and its folder's; None: none of a history."""
        round, name = _ROUND.fullmatch(path.parent.name), _FILE.fullmatch(path.name)
        if round is None or name is None:
            return None
        return cls(int(round[1]), None if name[1] is None else int(name[1]), int(name[2]))

    @property
    def place(self) -> str:
        """Its path in the store."""
        who = "model" if self.client is None else f"client-{self.client}"
        return f"{folder_of(self.round)}/{who}@{self.written:06}.safetensors"


def folder_of(round: int) -> str:
    """Return the name of a round's folder in a store."""
    return f"round-{round:06}"


def is_folder_of_round(path: Path) -> bool:
    """Whether a folder has the name of a round's in a store."""
    return _ROUND.fullmatch(path.name) is not None
