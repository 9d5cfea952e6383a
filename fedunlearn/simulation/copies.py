"""What ``check`` says of images that are there more than once: a few lines, however many seeds and targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fedunlearn.config import Experiment
from fedunlearn.data import FederatedData
from fedunlearn.data.duplicates import count_duplicates, in_words

SHOWN = 3
"""So many targets have a line each."""


class Copies:
    """The seed in which forgetting leaves most copies, of those that were added."""

    def __init__(self, experiment: Experiment) -> None:
        self._of_seed = len(experiment.seeds) > 1
        self._samples = "slices" if experiment.data.task == "segmentation" else "images"
        self._worst: tuple[int, Mapping[str, Any]] | None = None

    def add(self, seed: int, data: FederatedData, together: Iterable[tuple[int, ...]]) -> None:
        """Count a seed's copies, also on the border of each set that is forgotten together."""
        counted = count_duplicates(data, together)
        if self._worst is None or _weight(counted) > _weight(self._worst[1]):
            self._worst = seed, counted

    def lines(self) -> list[str]:
        """Return them in words; none where no image occurs twice."""
        if self._worst is None:
            return []
        seed, counted = self._worst
        lines = in_words(counted, self._samples, SHOWN)
        return [f"{line} (seed {seed})" for line in lines] if self._of_seed else lines


def _weight(counted: Mapping[str, Any]) -> tuple[int, int]:
    border = sum(border[key] for border in counted["border"] for key in ("retained", "validation", "test"))
    return border, counted["train"] + counted["validation"] + counted["test"]
