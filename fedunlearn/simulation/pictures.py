"""Pictures of a segmentation run: one test slice of a forgotten site under the models that its rows are about.

Of every request the slice is the one with the largest prostate among the test slices of the first forgotten site
that has any: the truth alone decides, so that no model, and nobody who saw one, has chosen it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from fedunlearn import workspace
from fedunlearn.config import Experiment
from fedunlearn.data import FederatedData
from fedunlearn.durable import write_durably
from fedunlearn.evaluation.forward import batches
from fedunlearn.evaluation.rows import Row
from fedunlearn.evaluation.scored import Unmeasurable
from fedunlearn.evaluation.segmentation import of_logits
from fedunlearn.report.overlay import overlay
from fedunlearn.report.picture_index import FOLDER, INDEX
from fedunlearn.runs.directory import RunDirectory
from fedunlearn.simulation.branches import branches, retrained_round


@dataclass(frozen=True)
class Scene:
    """One model to show: the label and moment of a row, and its round."""

    label: str
    at: str
    round: int


def draw_pictures(experiment: Experiment, run: RunDirectory, rows: Sequence[Row]) -> None:
    """Write ``pictures/*.png`` and, last, ``pictures/index.json``; nothing where images have no masks.

    Parameters
    ----------
    experiment, run
        The run must hold every branch, finished.
    rows
        Its scorecard's.
    """
    if experiment.data.task != "segmentation" or not experiment.measures.pictures:
        return
    (run.path / FOLDER).mkdir(exist_ok=True)
    entries = [entry for seed in experiment.seeds for entry in _Seed(experiment, run, seed).draw(rows)]
    run.write_json(f"{FOLDER}/{INDEX}", entries)


def scenes(rows: Sequence[Row], retrained: Callable[[int], int] = lambda round: round) -> list[Scene]:
    """Return which models are shown of one request's rows, in their order.

    The original when it was asked; of each method the unlearned and the recovered model, or where it did not
    recover that at the cap; after each method retraining in the round that ``retrained`` has for its last.
    """
    at = {(row.label, row.at): row.round for row in rows if not (row.diverged or row.failed)}
    found = [Scene("original", "request", at["original", "request"])]
    for label in dict.fromkeys(row.label for row in rows if row.label not in ("original", "retrain")):
        own = [Scene(label, moment, at[label, moment]) for moment in ("unlearned", "recovered", "cap")
               if (label, moment) in at]  # fmt: skip
        own = own[:2]  # the cap only where there is no recovery
        found += own
        found += [Scene("retrain", last.at, retrained(last.round)) for last in own[-1:]]
    return list(dict.fromkeys(found))


def choose_slice(data: FederatedData, clients: Sequence[int]) -> tuple[int, int] | None:
    """Return (test row, client) of the slice to show: the largest true prostate of the first client with one.

    Large is meant in square millimetres; of equals the first. None where no client has a test slice with a
    prostate.
    """
    if data.slices is None:
        return None
    test = data.slices["test"]
    pixels = (data.test_labels > 0).flatten(1).sum(dim=1).cpu().numpy()
    areas = pixels * test.spacing.astype(np.float64).prod(axis=1)
    for client in clients:
        rows = np.flatnonzero(test.site == client)
        if len(rows) and areas[rows].max() > 0:
            return int(rows[areas[rows].argmax()]), client
    return None


class _Seed:
    """The pictures of one experiment seed."""

    def __init__(self, experiment: Experiment, run: RunDirectory, seed: int) -> None:
        self._run = run
        self._seed = seed
        self._data = workspace.data_of(experiment, seed)
        self._model = workspace.new_model(experiment, self._data, seed=0)
        self._branches = branches(experiment, seed)
        self._retrained = partial(retrained_round, experiment)

    def draw(self, rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
        """Write the pictures of every request and yield their entries in the index."""
        groups: dict[tuple[int, str], list[Row]] = {}
        for row in rows:
            if row.seed == self._seed and row.request is not None:
                groups.setdefault((row.target, row.request), []).append(row)
        for (target, request), own in groups.items():
            forget = next(row for row in own if row.label == "original").forget.clients
            chosen = choose_slice(self._data, forget)
            if chosen is not None:
                yield from self._request(target, request, forget, *chosen, scenes(own, self._retrained))

    def _request(
        self, target: int, request: str, forget: Sequence[int], row: int, client: int, shown: Sequence[Scene]
    ) -> Iterator[dict[str, Any]]:
        data = self._data
        truth = data.test_labels[row].cpu()
        middle = data.in_channels // 2  # the slice itself, between its neighbours
        image = data.test_images[row, middle].float().cpu().numpy()
        start = f"s{self._seed}-{request}"
        assert data.slices is not None  # a slice of them was chosen
        index = data.slices["test"]
        about = {
            "seed": self._seed,
            "target": target,
            "request": request,
            "forget": list(forget),
            "client": client,
            "client_name": data.client_names[client] if data.client_names else "",
            "case": int(index.case[row]),
            "slice": int(index.slice[row]),
        }
        file = self._write(f"{start}-truth.png", overlay(image, truth.numpy() > 0, None))
        yield {**about, "label": "truth", "at": "truth", "round": None, "dice": None, "file": file}
        done: dict[tuple[str, int], dict[str, Any]] = {}
        for scene in shown:
            model = scene.label, scene.round
            if model not in done:  # recovered at once: the unlearned model is the recovered one
                logits = self._logits(target, scene, row)
                file = f"{start}-{scene.label}-r{scene.round:04d}.png"
                self._write(file, overlay(image, truth.numpy() > 0, logits.argmax(dim=0).numpy() > 0))
                done[model] = {"dice": _dice(logits, truth), "file": file}
            moment = {"label": scene.label, "at": scene.at, "round": scene.round}
            yield {**about, **moment, **done[model]}

    def _logits(self, target: int, scene: Scene, row: int) -> Tensor:
        """Return the model's logits of one test slice, (classes, height, width)."""
        branch = next(b for b in self._branches if b.label == scene.label and b.target in (target, None))
        snapshot = self._run.checkpoints(branch.name).load(scene.round)
        self._model.load(snapshot.vector.to(self._model.vector.device), snapshot.buffers)
        ((_, logits),) = batches(self._model.module, self._data.test_images[row : row + 1])
        return logits[0].cpu()

    def _write(self, name: str, content: bytes) -> str:
        write_durably(self._run.path / FOLDER / name, content)
        return name


def _dice(logits: Tensor, truth: Tensor) -> float | None:
    """Return the scorecard's Dice of one slice; None of a model that has diverged."""
    try:
        return round(float(of_logits(logits[None], truth[None]).qualities[0]), 6)
    except Unmeasurable:
        return None
