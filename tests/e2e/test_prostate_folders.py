"""A folder with the names of either public release runs as it is, and both give the same numbers."""

import json
from pathlib import Path

import pytest

from fedunlearn import config
from fedunlearn.data.phantom import write_phantoms
from fedunlearn.simulation.runner import simulate

TEXT = """
name = "folders"
targets = [[3]]
data.source = "prostate-mri"
data.directory = "{folder}"
data.partition = "site"
data.validation = 0.3
data.resize = 32
data.augmentation = "rot90-flip"
federation.num-clients = 6
model = {{ name = "unet", base-features = 4, levels = 3 }}
train = {{ rounds = 1, lr = 0.01, optimizer = "adam", batch-size = 16 }}
method = [{{ name = "puf" }}]
recover.max-rounds = 1
"""

# What the other public release calls the same sites, and how it ends the names of masks.
RENAMED = {"I2CVB": "HCRUDB", "ISBI": "RUNMC", "ISBI_1.5": "BMC"}
OTHER_ENDING = {"_segmentation": "_Segmentation", "_Segmentation": "_segmentation"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return two folders with the same cases: under the names of one release, and of the other."""
    root = tmp_path_factory.mktemp("prostate")
    first, second = root / "first", root / "second"
    write_phantoms(first, cases=3, size=32)
    for file in first.glob("*/*"):
        name = file.name
        for ending, other in OTHER_ENDING.items():
            if ending in name:
                name = name.replace(ending, other)
                break
        target = second / RENAMED.get(file.parent.name, file.parent.name) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    return {"first": first, "second": second}


@pytest.mark.slow
def test_both_releases_run_and_agree(folders: dict[str, Path], tmp_path: Path) -> None:
    cards = {}
    for name, folder in folders.items():
        experiment = config.loads(TEXT.format(folder=folder))
        run = simulate(experiment, out=tmp_path / name)
        cards[name] = json.loads((run / "scorecard.json").read_text())
    first, second = (
        {(row["label"], row["at"]): row["metrics"] for row in cards[name]["rows"]} for name in folders
    )
    assert first == second
    assert {label for label, _ in first} == {"original", "retrain", "puf-special-2"}
    assert all(0 < metrics["test_dice"] < 100 for metrics in first.values())
