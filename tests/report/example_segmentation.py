"""A made-up finished segmentation run: the curves of ``example_run`` as Dice, six sites, pictures of a phantom."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedunlearn.evaluation.scorecard import scorecard
from fedunlearn.report.overlay import overlay
from tests.report.example_rows import CAP, NATURAL, PUF, Json, Point
from tests.report.example_run import ROUNDS, ExampleRun, held

SITES = ("BIDMC", "HK", "I2CVB", "ISBI", "ISBI_1.5", "UCL")
SLICES = (156, 94, 280, 246, 230, 105)
TOML = """name = "prostate"
seeds = [1]
targets = [[0], [2], [5]]

[data]
source = "prostate-mri"
partition = "site"

[federation]
num-clients = 6

[model]
name = "unet"

[train]
rounds = 30
lr = 1e-4

[[method]]
name = "puf"

[[method]]
name = "natural"
"""


def dice_measures(point: Point) -> dict[str, float | None]:
    """Every measure of a segmentation model, made up from its two Dice values."""
    forget, test = point["forget"], point["test"]
    found: dict[str, float | None] = {"forget_dice": forget, "retain_dice": test + 2.4, "test_dice": test}
    found |= {"forget_test_dice": forget - 1.5, "test_loss": (100 - test) / 60}
    found |= {"forget_hausdorff": 2 + (100 - forget) / 6, "test_hausdorff": 2 + (100 - test) / 8}
    found |= {"test_missed": max(0.0, (90 - test) / 4), "mia_svc": 30 + forget * 0.3, "mia_svc_matched": None}
    return found | {"mia_auc": 50 + (forget - test) / 3}


def gland(shift: float, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Return a slice (size, size) with a bright gland moved by so many pixels, and its mask."""
    row, column = np.mgrid[:size, :size] - size / 2
    mask = ((row / 0.8) ** 2 + (column - shift) ** 2) < (size / 5) ** 2
    texture = np.sin(row / 5) * np.cos(column / 4) / 8
    return (0.35 + 0.3 * mask + texture - (row**2 + column**2) / (3 * size**2)).astype(np.float32), mask


@dataclass
class SegmentationRun(ExampleRun):
    """The same protocol on masks: change ``pictured`` first for odd cases."""

    name: str = "prostate"
    targets: tuple[tuple[int, ...], ...] = ((0,), (2,), (5,))
    toml: str = TOML
    origin: str = "phantom"
    pictured: list[Json] = field(default_factory=list)
    """The index of the pictures."""

    METRIC = "dice"
    measures = staticmethod(dice_measures)

    def __post_init__(self) -> None:
        super().__post_init__()
        for seed in self.counts:
            self.counts[seed] = held(np.array(SLICES)[:, None], ["slices"]) | {"client_names": list(SITES)}
            self.counts[seed] |= {"origin": self.origin} if self.origin else {}
        self.pictured = [entry for seed in self.seeds for entry in self._entries(seed)]

    def card(self, run: str) -> Json:
        """Return the scorecard."""
        return {**scorecard(self.name, run, self.rows), "task": "segmentation"}

    def write(self, directory: Path) -> Path:
        """Write every file of the run, pictures and all, and return the directory."""
        super().write(directory)
        folder = directory / "pictures"
        folder.mkdir(exist_ok=True)
        image, truth = gland(0)
        for entry in self.pictured:
            shown = None if entry["label"] == "truth" else gland(entry["dice"] / 8 - 12)[1]
            (folder / Path(entry["file"]).name).write_bytes(overlay(image, truth, shown))
        (folder / "index.json").write_text(json.dumps(self.pictured))
        return directory

    def _entries(self, seed: int) -> Iterator[Json]:
        """Yield the entries of a seed: truth, original, and of each method unlearned, last, retrained."""
        if self.timeline:
            return
        for place, clients in enumerate(self.targets):
            about = {
                "seed": seed, "target": place, "request": f"target-{place}", "forget": list(clients),
                "client": clients[0], "client_name": SITES[clients[0]], "case": 3 + place, "slice": 11,
            }  # fmt: skip
            compare = ROUNDS + 4 + place % 2
            natural = ("cap", ROUNDS + CAP) if place == 1 else ("recovered", ROUNDS + 1)
            scenes = [("truth", "truth", None, None), ("original", "request", ROUNDS, 93.0)]
            for label, (at, last) in ((PUF, ("recovered", compare)), (NATURAL, natural)):
                scenes += [(label, "unlearned", ROUNDS + 1, 52.0 + place), (label, at, last, 86.0)]
                scenes += [("retrain", at, last, 84.0)]
            for label, at, round, dice in scenes:
                file = f"s{seed}-target-{place}-{label}" + (f"-r{round:04d}" if round else "") + ".png"
                yield about | {"label": label, "at": at, "round": round, "dice": dice, "file": file}
