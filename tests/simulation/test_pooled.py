"""On pooled data the retrained model has as many epochs as the original; in a federation as many as its rival."""

import json

import pytest

from fedunlearn.report.page import write_report
from fedunlearn.requests import Ledger
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.runs.metrics_log import read_metrics
from fedunlearn.simulation.branches import branches, is_pooled, retrained_round
from fedunlearn.simulation.evaluation_forecast import models_measured
from fedunlearn.simulation.pictures import scenes
from fedunlearn.simulation.runner import read_scorecard, simulate
from tests.e2e.tiny import PARTS, TIMELINE, TINY, tiny
from tests.simulation.test_diverged import SOUND
from tests.simulation.test_pictures import row as row_of

ROUNDS, CAP = 3, 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return simulate(tiny(text=SOUND), out=tmp_path_factory.mktemp("pooled"))


def rows_of(folder, label):
    return [row for row in read_scorecard(folder)["rows"] if row["label"] == label]


def test_every_model_of_reference_has_had_as_many_epochs_as_the_original(run):
    with Ledger(run / "requests.sqlite") as ledger:
        epochs = {name: ledger.last_round(name) for name in ledger.branches()}
        plans = {name: len(ledger.plans(name)) for name in epochs}
    for name in ("original-s1", "retrain-0-s1", "floor-0-s1"):
        assert epochs[name] == plans[name] == ROUNDS
        assert Checkpoints(run / "checkpoints", name).rounds()[-1] == ROUNDS
    assert epochs["fine-tune-0-s1"] == ROUNDS + CAP


def test_every_gap_is_to_that_one_model(run):
    (reference,) = (row for row in rows_of(run, "retrain") if row["at"] == "request")
    (again,) = (row for row in rows_of(run, "retrain") if row["at"] == "cap")
    assert reference["round"] == again["round"] == ROUNDS
    assert reference["metrics"] == again["metrics"]
    for label in ("fine-tune", "gradient-ascent", "natural"):
        mine = rows_of(run, label)
        assert {row["round"] for row in mine} >= {ROUNDS + 1, ROUNDS + CAP}
        for row in mine:
            for name in ("forget_accuracy", "retain_accuracy", "test_accuracy", "mia_svc"):
                expected = row["metrics"][name] - reference["metrics"][name]
                assert row["gap"][name] == pytest.approx(expected, abs=2e-6)
            assert row["floor"] == reference["floor"]


def test_recovery_is_judged_by_it_too(run):
    (reference,) = (
        m.value
        for m in read_metrics(run / "metrics.jsonl")
        if (m.branch, m.round, m.split, m.metric) == ("retrain-0-s1", ROUNDS, "validation", "accuracy")
    )
    records = {r["branch"]: r for r in json.loads((run / "branches.json").read_text())}
    judged = 0
    for name in ("fine-tune-0-s1", "natural-0-s1"):
        quality = {
            m.round: m.value
            for m in read_metrics(run / "metrics.jsonl")
            if (m.branch, m.split, m.metric) == (name, "validation", "accuracy") and m.round > ROUNDS
        }
        reached = [round for round, value in sorted(quality.items()) if value >= reference]
        (request,) = records[name]["requests"]
        assert request["ended_round"] == (reached[0] if reached else ROUNDS + CAP)
        assert request["outcome"] == ("recovered" if reached else "capped")
        judged += 1
    assert judged == 2


def test_the_report_is_drawn(run):
    assert "as many epochs as the original" in write_report(run).read_text()


def test_check_counts_these_models_once(run):
    """The original, two of reference, and of three methods unlearned, cap and, halfway, recovered."""
    assert models_measured(tiny(text=SOUND), 1) == 3 + 3 * 3


@pytest.mark.parametrize("text", [TINY, TIMELINE, PARTS], ids=["targets", "timeline", "parts"])
def test_a_federation_s_goes_on_as_long_as_its_rivals(text):
    """What it always was: with more than one client, and in a timeline."""
    experiment = tiny(text=text)
    assert not is_pooled(experiment)
    found = branches(experiment, 1)
    last = max(b.last_round for b in found if b.kind == "method")
    for kind in ("retrain", "floor"):
        assert max(b.last_round for b in found if b.kind == kind) == last
    assert [retrained_round(experiment, round) for round in range(9)] == list(range(9))


def test_a_timeline_of_one_client_trains_on_like_any():
    text = TIMELINE.replace("num-clients = 4", "num-clients = 1").replace("clients = [0]", "classes = [0]")
    experiment = tiny(text=text.replace("clients = [2]", "classes = [2]"))
    assert not is_pooled(experiment)
    assert retrained_round(experiment, 6) == 6


def test_a_picture_of_it_is_of_that_round():
    moments = (("original", "request", 3), ("fine-tune", "unlearned", 4), ("fine-tune", "cap", 6))
    rows = [row_of(*moment, 0, (0,)) for moment in moments]
    shown = scenes(rows, lambda round: min(round, 3))
    assert [(scene.label, scene.round) for scene in shown][-1] == ("retrain", 3)
