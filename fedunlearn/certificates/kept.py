"""What a run directory still holds of clients to be forgotten, and a look into its folders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedunlearn.runs.history_files import HistoryFile

Holds = Literal["update", "earlier-weights", "weights", "numbers", "record", "unknown"]


@dataclass(frozen=True)
class Kept:
    """One thing, or several of one kind, that a run directory still holds.

    Attributes
    ----------
    place : str
        Path relative to the run directory; of several, "first … last".
    files : int
    holds : str
        ``update`` of one of the clients, or weights that it came to; ``earlier-weights``: a model from before the
        unlearning step; ``weights`` from that step on; ``numbers`` measured of a client; ``record``: who, what and
        when; ``unknown``.
    about : str
        One sentence for a reader.
    """

    place: str
    files: int
    holds: Holds
    about: str


class Listing:
    """The files of a run directory, each folder looked at once: there may be thousands of certificates in it."""

    def __init__(self) -> None:
        self._names: dict[Path, list[str]] = {}
        self._folders: dict[Path, list[Path]] = {}
        self._below: dict[Path, list[Path]] = {}
        self._stores: dict[Path, dict[int | None, list[tuple[Path, HistoryFile]]]] = {}

    def names(self, folder: Path) -> list[str]:
        """Return the names of the files in a folder in alphabetical order; none of a folder that is not there."""
        if folder not in self._names:
            files = os.scandir(folder) if folder.is_dir() else ()
            self._names[folder] = sorted(entry.name for entry in files if entry.is_file())
        return self._names[folder]

    def folders(self, folder: Path) -> list[Path]:
        """Return the folders in a folder in alphabetical order; none of a folder that is not there."""
        if folder not in self._folders:
            found = folder.iterdir() if folder.is_dir() else ()
            self._folders[folder] = sorted(path for path in found if path.is_dir())
        return self._folders[folder]

    def below(self, folder: Path) -> list[Path]:
        """Return the files in a folder and all its folders, in order."""
        if folder not in self._below:
            found = folder.rglob("*") if folder.is_dir() else ()
            self._below[folder] = sorted(path for path in found if path.is_file())
        return self._below[folder]

    def store(self, folder: Path) -> Mapping[int | None, Sequence[tuple[Path, HistoryFile]]]:
        """Return what a store of earlier rounds has of each client; under None, of the model."""
        if folder not in self._stores:
            found: dict[int | None, list[tuple[Path, HistoryFile]]] = {}
            for path in self.below(folder):
                if (file := HistoryFile.of(path)) is not None and path.parent.parent == folder:
                    found.setdefault(file.client, []).append((path, file))
            self._stores[folder] = found
        return self._stores[folder]
