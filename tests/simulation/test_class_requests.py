"""A whole class is forgotten, and half of one: which rows have accuracy by classes, and that it is the model's."""

import pytest
import torch

from fedunlearn import workspace
from fedunlearn.report.page import write_report
from fedunlearn.report.tables import markdown
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.simulation.runner import read_scorecard, simulate
from tests.e2e.tiny import TINY, tiny

TEXT = TINY.replace("targets = [[1]]\n", "") + """
[[target]]
classes = [2]
[[target]]
classes = [2]
samples = 0.5
[[target]]
clients = [1]
"""  # fmt: skip
NAMES = ("retain_test_accuracy", "forget_test_accuracy")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return simulate(tiny(text=TEXT), out=tmp_path_factory.mktemp("classes"))


def test_only_the_whole_class_has_them(run):
    for row in read_scorecard(run)["rows"]:
        for kind in ("metrics", "gap", "floor"):
            assert all((name in row[kind]) == (row["target"] == 0) for name in NAMES)


def test_they_are_the_checkpoints_accuracies(run):
    experiment = tiny(text=TEXT)
    data = workspace.data_of(experiment, 1)
    model = workspace.new_model(experiment, data, 1)
    rows = [row for row in read_scorecard(run)["rows"] if row["target"] == 0]
    assert {row["label"] for row in rows} == {"original", "retrain", "puf-special-2", "natural"}
    for row in rows:
        branch = "original-s1" if row["label"] == "original" else f"{row['label']}-0-s1"
        snapshot = Checkpoints(run / "checkpoints", branch).load(row["round"])
        model.load(snapshot.vector, snapshot.buffers)
        with torch.no_grad():
            right = model.module.eval()(data.test_images).argmax(dim=1) == data.test_labels
        for name, chosen in zip(NAMES, (data.test_labels != 2, data.test_labels == 2), strict=True):
            assert row["metrics"][name] == pytest.approx(100 * right[chosen].double().mean().item(), abs=1e-5)


def test_average_gap_is_over_the_classes_that_remain(run):
    used = {0: "retain_test_accuracy", 1: "test_accuracy", 2: "test_accuracy"}
    rows = [row for row in read_scorecard(run)["rows"] if row["label"] == "natural"]
    for row in rows:
        names = ("forget_accuracy", "retain_accuracy", used[row["target"]], "mia_svc")
        expected = sum(abs(row["gap"][name]) for name in names) / 4
        assert row["metrics"]["average_gap"] == pytest.approx(expected, abs=1e-5)


def test_tables_and_report_show_them(run):
    for text in (markdown(read_scorecard(run)), write_report(run).read_text()):
        assert "test accuracy, remaining classes" in text
        assert "test accuracy, forgotten classes" in text


def test_every_row_says_what_of_whose_data_was_forgotten(run):
    """In the terms of the experiment file; a part's number is for whoever looks it up in the run's other files."""
    clients = list(range(tiny(text=TEXT).federation.num_clients))
    whom = "clients " + ", ".join(map(str, clients[:-1])) + f" and {clients[-1]}"
    half = f"50 % of the samples of class 2 of {whom}"
    rows = read_scorecard(run)["rows"]
    for row in rows:
        forget = dict(row["forget"])
        assert len(forget.pop("parts", clients)) == len(clients)
        assert forget == (
            {"clients": clients, "samples": None, "classes": [2], "words": f"class 2 of {whom}"},
            {"clients": clients, "samples": 0.5, "classes": [2], "words": half},
            {"clients": [1], "samples": None, "classes": None},
        )[row["target"]]  # fmt: skip
    listed = markdown(read_scorecard(run)).partition("## Every row")[2]
    assert listed.count(f"| class 2 of {whom} |") == sum(row["target"] == 0 for row in rows)
    assert listed.count("| client 1 |") == sum(row["target"] == 2 for row in rows)
    assert f"puf-special-2, class 2 of {whom}, seed 1: " in write_report(run).read_text()
