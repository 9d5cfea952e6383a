"""Every shipped experiment runs its whole protocol as ``--smoke``, and leaves what it promises."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fedunlearn.config import Experiment, load
from fedunlearn.report.words import SMOKE, origin_words
from tests.golden import recording
from tests.golden.running import run, shipped, smoke_name

# What every label is measured at: the moments that each target set must have, whatever happened to recovery.
ALWAYS = {"original": {"request"}, "retrain": {"request", "cap"}}
QUICKSTART_FIRST = sorted(shipped(), key=lambda path: path.stem != "quickstart")


@pytest.mark.capability("golden")
@pytest.mark.quick(path=1)
@pytest.mark.parametrize("path", QUICKSTART_FIRST, ids=lambda path: path.stem)
def test_the_whole_protocol_runs(path: Path, tmp_path: Path) -> None:
    experiment = load(path, smoke=True)
    if experiment.model.name == "mit-b0":
        pytest.importorskip("transformers")
    finished = run(smoke_name(path), tmp_path, timeout=500)
    card = json.loads((finished / "scorecard.json").read_text())
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
    check_buffers(finished)
    check_page(finished, experiment)
    recording.check(finished, smoke_name(path))  # last: it skips on another kind of machine


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
