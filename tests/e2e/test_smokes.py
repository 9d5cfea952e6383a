"""Every shipped experiment runs its whole protocol as ``--smoke``, and leaves what it promises."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fedunlearn.config import Experiment, load
from fedunlearn.report.words import SMOKE, origin_words

ROOT = Path(__file__).parents[2]
# A live federation has nothing retrained to compare with, so no scorecard: tests/containers runs that one.
EXPERIMENTS = sorted(path for path in (ROOT / "experiments").rglob("*.toml") if not load(path).live)

# What every label is measured at: the moments that each target set must have, whatever happened to recovery.
ALWAYS = {"original": {"request"}, "retrain": {"request", "cap"}}


@pytest.mark.slow
@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_the_whole_protocol_runs(path: Path, tmp_path: Path) -> None:
    experiment = load(path, smoke=True)
    if experiment.model.name == "mit-b0":
        pytest.importorskip("transformers")
    run = smoke(path, tmp_path)
    card = json.loads((run / "scorecard.json").read_text())
    rows = card["rows"]
    labels = {"original", "retrain", *(method.label for method in experiment.methods)}
    assert {row["label"] for row in rows} == labels
    assert card.get("task", "classification") == experiment.data.task
    if experiment.targets is not None:
        sets = experiment.target_sets(experiment.seeds[0])
        for target, clients in enumerate(sets):
            of_set = [row for row in rows if row["target"] == target]
            assert {tuple(row["forget"].get("parts") or row["forget"]["clients"]) for row in of_set} == {
                clients
            }
            for label in labels:
                moments = {row["at"] for row in of_set if row["label"] == label}
                assert moments >= ALWAYS.get(label, {"unlearned", "cap"})
    quality = "dice" if experiment.data.task == "segmentation" else "accuracy"
    for row in rows:
        for split in ("forget", "retain", "test", "validation"):
            assert 0 <= row["metrics"][f"{split}_{quality}"] <= 100
    check_buffers(run)
    check_page(run, experiment)


def smoke(path: Path, folder: Path) -> Path:
    """Run an experiment as a user does, and return its run directory."""
    result = subprocess.run(
        [sys.executable, "-m", "fedunlearn.cli", "run", str(path), "--smoke", "--out", "runs"],
        cwd=folder,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "FEDUNLEARN_CACHE": str(folder / "cache"),
        },
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (run,) = (each for each in (folder / "runs").iterdir() if each.is_dir() and each.name != ".cache")
    return run


def check_buffers(run: Path) -> None:
    """No checkpoint of any branch holds a variance below zero, or a weight that is no number."""
    checkpoints = sorted((run / "checkpoints").glob("*.safetensors"))
    assert checkpoints
    for checkpoint in checkpoints:
        for name, tensor in load_file(checkpoint).items():
            assert torch.isfinite(tensor).all(), (checkpoint.name, name)
            if name.endswith("running_var"):
                assert (tensor >= 0).all(), (checkpoint.name, name)


def check_page(run: Path, experiment: Experiment) -> None:
    """The report says that the run is a smoke run, where the data are from, and shows masks where there are any."""
    page = (run / "report.html").read_text()
    assert SMOKE in page
    stated = partial(str.__contains__, page.lower())
    assert all(map(stated, (method.label for method in experiment.methods)))
    if experiment.data.source == "prostate-phantom":
        assert stated(origin_words("phantom").lower())
        assert stated("data:image/png;base64,")
        pictures = json.loads((run / "pictures" / "index.json").read_text())
        assert pictures
    elif experiment.data.source == "synthetic-images":
        assert stated(origin_words("synthetic").lower())
