"""How many classes a live run's data have, for those who take in requests and have no data themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fedunlearn.config import Experiment
from fedunlearn.durable import write_durably
from fedunlearn.json_text import loads

CLASSES = "classes.json"
"""The names of the classes, in a run directory whose data are files of their own: the experiment's may be others."""


def note_classes(folder: Path, class_names: Sequence[str]) -> None:
    """Leave in a run directory what the classes of its data are called."""
    write_durably(folder / CLASSES, json.dumps(list(class_names)).encode())


def classes_of_run(folder: Path, experiment: Experiment) -> int | None:
    """Return how many classes the data have: as the server has noted, or as the experiment says; None: unknown."""
    try:
        return len(loads((folder / CLASSES).read_bytes(), folder / CLASSES))
    except FileNotFoundError:
        return experiment.data.classes
    except (OSError, ValueError, TypeError):
        return None  # nothing is refused on the word of a file that cannot be read
