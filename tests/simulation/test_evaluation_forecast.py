"""What is forecast of evaluation is what then happens, and the probe is of the evaluation itself."""

import json

import pytest

from fedunlearn import workspace
from fedunlearn.runs.metrics_log import read_metrics
from fedunlearn.simulation import evaluation_forecast as module
from fedunlearn.simulation.branches import branches
from fedunlearn.simulation.evaluation_forecast import (
    evaluated_in_rounds,
    evaluated_with,
    models_measured,
    probe_evaluation,
)
from fedunlearn.simulation.schedule import Schedule
from tests.clients import sites
from tests.e2e.tiny import tiny
from tests.simulation.scripted import TARGETS, TIMELINE


@pytest.fixture(params=["targets", "timeline"])
def run(request):
    return {"targets": TARGETS, "timeline": TIMELINE}[request.param], request.getfixturevalue(
        f"{request.param}_run"
    )


@pytest.mark.slow
def test_the_examples_evaluated_after_rounds_are_those_of_the_run(run):
    experiment, folder = run
    data = workspace.data_of(experiment, 1)
    held_out, training = len(data.validation_labels) + len(data.test_labels), len(data.train_labels)
    last = {b["branch"]: b["last_round"] for b in json.loads((folder / "branches.json").read_text())}
    lines = list(read_metrics(folder / "metrics.jsonl"))
    for branch in branches(experiment, 1):
        rounds = {m.round for m in lines if (m.branch, m.split) == (branch.name, "test")}
        whole = {m.round for m in lines if (m.branch, m.split, m.metric) == (branch.name, "forget", "loss")}
        found = len(rounds) * held_out + len(whole) * training
        if last[branch.name] == branch.last_round:
            assert evaluated_in_rounds(branch, data) == found, branch.name
        else:  # a timeline's method that recovered early
            assert evaluated_in_rounds(branch, data) > found, branch.name


def test_the_models_measured_if_all_recover_halfway():
    # original 3; retrain and floor 3 to 6; puf and natural unlearned in 4, recovered in 5, at the cap in 6
    assert models_measured(tiny(), 1) == 1 + 2 * 4 + 2 * 3
    assert models_measured(tiny('recover.until="max-rounds"'), 1) == 1 + 2 * 3 + 2 * 2, "nothing recovers"
    assert models_measured(tiny("floor.retrainings=3"), 1) == 1 + 4 * 4 + 2 * 3


def test_a_run_measures_about_so_many(run):
    experiment, folder = run
    records = {b["branch"]: b for b in json.loads((folder / "branches.json").read_text())}
    schedule = Schedule(experiment, 1, records)
    found = set()
    for branch, moment, _, _, round, *_ in schedule:
        found |= {(b.name, round) for b in (branch, schedule.retrain(moment), *schedule.floors(moment))}
    assert models_measured(experiment, 1) == pytest.approx(len(found), rel=0.25)


def test_rounds_and_measuring_are_in_it():
    data = workspace.data_of(tiny(), 1)
    rounds = sum(evaluated_in_rounds(branch, data) for branch in branches(tiny(), 1))
    everything = len(data.train_labels) + len(data.validation_labels) + len(data.test_labels)
    assert evaluated_with(tiny(), 1, data) == rounds + 15 * everything


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_the_probe_is_of_the_task_and_stays_small(task, monkeypatch):
    experiment, seen = tiny(), []
    if task == "segmentation":
        place = sites.workplace()
        experiment = place.experiment
        monkeypatch.setattr(workspace, "data_of", lambda experiment, seed: place.data)
    name = {"classification": "predict", "segmentation": "segment"}[task]
    way = getattr(module, name)

    def counted(model, images, *others, **settings):
        seen.append(len(images))
        return way(model, images, *others, **settings)

    monkeypatch.setattr(module, name, counted)
    monkeypatch.setattr(module, "PROBE_BATCH", 4)
    ticks = iter([10.0, 10.0, 10.1, 10.3, 10.5])  # begun, asked thrice, read
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(ticks))
    assert probe_evaluation(experiment) == pytest.approx(0.5 / (2 * 4))
    assert seen == [4] * (1 + 2), "one to warm up, and as many as fit"
