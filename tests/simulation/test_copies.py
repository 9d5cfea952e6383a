"""Copies across what is forgotten, from the data through a run to partition.json and the report."""

import json
from dataclasses import replace

import pytest

from fedunlearn import workspace
from fedunlearn.report.page import write_report
from fedunlearn.simulation.runner import simulate
from tests.e2e.tiny import tiny
from tests.report.parsed_page import parse


@pytest.mark.slow
def test_a_run_counts_copies_for_each_target_and_reports_them(tmp_path, monkeypatch):
    load = workspace.data_of

    def copied(experiment, seed):
        """Client 2's first image is client 0's, too, and client 1's second one is in the test set."""
        data = load(experiment, seed)
        train, test = data.train_images.clone(), data.test_images.clone()
        train[data.clients[2][0]] = train[data.clients[0][0]]
        test[0] = train[data.clients[1][1]]
        return replace(data, train_images=train, test_images=test)

    monkeypatch.setattr(workspace, "data_of", copied)
    experiment = tiny("targets=[[0, 2], [0], [1], [3]]", "train.rounds=1", "recover.max-rounds=1")
    run = simulate(experiment, out=tmp_path)
    held = json.loads((run / "partition.json").read_text())["1"]
    assert (held["duplicates"]["train"], held["duplicates"]["test"]) == (2, 1)
    found = {tuple(border.pop("clients")): border for border in held["duplicates"]["border"]}
    assert found == {
        (0,): {"what": "client 0", "forgotten": 1, "retained": 1, "validation": 0, "test": 0},
        (1,): {"what": "client 1", "forgotten": 0, "retained": 0, "validation": 0, "test": 1},
    }
    (section,) = parse(write_report(run).read_text()).all("section", id="duplicates")
    assert [item.text for item in section.all("li")] == held["copies"]
    assert "forgetting client 0 leaves copies of its images: 1 in the retained data" in held["copies"]
