"""Seals of checkpoints: for each round the hash of its checkpoint, and of what it came of, signed if there is a key.

A seal is in the ledger before its checkpoint has its name, and is *complete* once it has: whatever a crash leaves,
every checkpoint that lies in the run directory is sealed, and a complete seal whose checkpoint is gone tells so.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedunlearn.certificates.keys import SigningKey
from fedunlearn.certificates.signing import SEAL, sign
from fedunlearn.json_text import JsonError, loads_object
from fedunlearn.requests import trail
from fedunlearn.requests.ledger import Ledger
from fedunlearn.requests.records import canonical_json
from fedunlearn.requests.store import Store
from fedunlearn.runs.checkpoints import Checkpoints

log = logging.getLogger("fedunlearn")

EXPERIMENT = "experiment.toml"


@dataclass(frozen=True)
class Seal:
    """What was sealed of one round.

    Attributes
    ----------
    round : int
    document : dict
        ``federation``, ``round``, ``complete``; ``checkpoint``, ``plan`` and ``settings``, the SHA-256 (hex) of the
        checkpoint's file, of the round's plan with its failures (null without a plan) and of ``experiment.toml``;
        ``history``: the files of earlier rounds that the round has written, by place in the history, with theirs;
        ``head`` of the trail as ``entry:hash`` or null; ``at`` in Unix seconds.
    key_id, signature : str or None
        None where the server had no key.
    """

    round: int
    document: dict[str, Any]
    key_id: str | None
    signature: str | None


def read(store: Store, branch: str) -> list[Seal]:
    """Return a branch's seals by round.

    Raises
    ------
    JsonError
        A document is none.
    """
    rows = store.rows("SELECT * FROM seals WHERE branch = ? ORDER BY round", branch)
    return [
        Seal(
            row["round"],
            loads_object(row["document"], f"{store.place}: seal of round {row['round']}"),
            row["key_id"],
            row["signature"],
        )
        for row in rows
    ]


def plan_digest(store: Store, branch: str, round: int) -> str | None:
    """Return the SHA-256 (hex) of a round's plan and failures as they stand in the file; None without a plan."""
    row = store.row("SELECT plan, failed FROM plans WHERE branch = ? AND round = ?", branch, round)
    if row is None:
        return None
    failed = "-" if row["failed"] is None else row["failed"]
    return hashlib.sha256(f"{row['plan']}\n{failed}".encode()).hexdigest()


class Sealer:
    """Seals the checkpoints of one federation.

    Parameters
    ----------
    run_folder, ledger, branch, key, clock
        See :class:`fedunlearn.certificates.issuer.Clerk`.
    """

    def __init__(
        self,
        run_folder: Path,
        ledger: Ledger,
        branch: str,
        key: SigningKey | None,
        clock: Callable[[], float],
    ) -> None:
        self._run = run_folder
        self._ledger = ledger
        self._branch = branch
        self._key = key
        self._clock = clock
        self._settings: str | None = None

    def seal(self, round: int, checkpoint: str, history: Mapping[str, str], *, complete: bool) -> None:
        """Seal a round's checkpoint, in the place of an earlier seal of the round.

        Parameters
        ----------
        checkpoint
            SHA-256 (hex) of its file.
        history
            The same of the files that the round adds to the history of earlier rounds, by place in it.
        complete
            Whether it has its name already.
        """
        store = self._ledger.store
        with self._ledger.batch():
            head = trail.head(store.rows, self._branch)
            document = {
                "federation": self._branch,
                "round": round,
                "complete": complete,
                "checkpoint": checkpoint,
                "plan": plan_digest(store, self._branch, round),
                "settings": self._settings_digest(),
                "history": dict(history),
                "head": None if head is None else str(head),
                "at": float(self._clock()),
            }
            self._write(round, document)

    def resume(self, round: int) -> None:
        """Bring the seals up to date when a server starts, with its newest checkpoint of this round.

        The newest seal is made complete, and of the settings that the server has; where there is a key now, seals
        from the time before are signed. Nothing is sealed that is not the file that was.
        """
        try:
            found = read(self._ledger.store, self._branch)
        except JsonError as error:
            log.error("%s; `fedunlearn verify %s` gives details", error, self._run)
            return
        with self._ledger.batch():
            for seal in found:
                if seal.signature is None and self._key is not None:
                    self._write(seal.round, seal.document)
        newest = next((seal for seal in found if seal.round == round), None)
        path = Checkpoints(self._run / "checkpoints", self._branch).path(round)
        if newest is None or not path.is_file():
            return
        stated = newest.document
        if stated.get("complete") is True and stated.get("settings") == self._settings_digest():
            return
        if file_digest(path) != stated.get("checkpoint"):
            log.error(
                "%s: is not the checkpoint that was sealed; `fedunlearn verify %s` gives details",
                path,
                self._run,
            )
            return
        self.seal(round, str(stated["checkpoint"]), stated.get("history", {}), complete=True)

    def _write(self, round: int, document: dict[str, Any]) -> None:
        self._ledger.store.rows(
            "INSERT OR REPLACE INTO seals (branch, round, document, key_id, signature) VALUES (?, ?, ?, ?, ?)",
            *(self._branch, round, canonical_json(document, "seal")),
            *(None, None) if self._key is None else (self._key.key_id, sign(SEAL, document, self._key)),
        )

    def _settings_digest(self) -> str | None:
        if self._settings is None and (self._run / EXPERIMENT).is_file():
            self._settings = file_digest(self._run / EXPERIMENT)
        return self._settings


def file_digest(path: Path) -> str:
    """Return the SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
