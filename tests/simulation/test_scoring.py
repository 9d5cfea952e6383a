"""Rows of the scorecard, each recomputed from its checkpoint with plain torch, or counted by hand."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fedunlearn import workspace
from fedunlearn.clients.classification import Classification
from fedunlearn.runs.directory import RunDirectory
from fedunlearn.simulation.forecast import forecast
from fedunlearn.simulation.runner import read_scorecard, simulate
from tests.e2e.tiny import TINY, tiny
from tests.simulation.scripted import NEVER, TARGETS, TIMELINE, scripted

MODEL_BYTES = 4 * (64 * 8 + 8 + 8 * 4 + 4)  # 8 × 8 pixels, 8 hidden units, 4 classes, float32
FORGOTTEN = {"tiny": [(1,), (0, 3)], "scripted-timeline": [(0,), (0, 1, 2, 4), (0, 1, 2, 4, 5)]}
PUF, NATURAL, REGULAR = "puf-special-2", "natural", "puf-regular-4"


@pytest.fixture(params=["targets", "timeline"])
def finished(request):
    """Experiment, run directory and rows of each scripted run."""
    folder = request.getfixturevalue(f"{request.param}_run")
    return {"targets": TARGETS, "timeline": TIMELINE}[request.param], folder, read_scorecard(folder)["rows"]


def branch_of(experiment, row):
    """Return the name of the branch that a row is about."""
    if row["label"] == "original":
        return "original-s1"
    if row["label"] == "retrain":
        return f"retrain-{row['target']}-s1"
    return f"{row['label']}-{row['target'] if experiment.targets else 'timeline'}-s1"


# -- what was measured ----------------------------------------------------------------------------------------


class Plain:
    """A run's checkpoints and data, looked at with nothing but torch and NumPy."""

    def __init__(self, experiment, folder):
        self.folder = folder
        self.data = workspace.data_of(experiment, 1)

    def vector(self, branch, round):
        return load_file(self.folder / "checkpoints" / f"{branch}-r{round:04d}.safetensors")["parameters"]

    def correct(self, branch, round, images, labels):
        w1, b1, w2, b2 = self.vector(branch, round).split([64 * 8, 8, 8 * 4, 4])
        hidden = torch.relu(images.reshape(len(images), 64) @ w1.reshape(8, 64).T + b1)
        return ((hidden @ w2.reshape(4, 8).T + b2).argmax(1) == labels).numpy()

    def accuracies(self, branch, round, forget, forgotten):
        data = self.data
        train = self.correct(branch, round, data.train_images, data.train_labels)
        of = {k: train[rows] for k, rows in enumerate(data.clients)}
        parts = {
            "forget": np.concatenate([of[k] for k in forget]),
            "retain": np.concatenate([c for k, c in of.items() if k not in forgotten]),
            "test": self.correct(branch, round, data.test_images, data.test_labels),
            "validation": self.correct(branch, round, data.validation_images, data.validation_labels),
        }
        return {f"{name}_accuracy": 100 * part.mean() for name, part in parts.items()}


def test_accuracies_gaps_and_floors_of_every_row(finished):
    experiment, folder, rows = finished
    plain = Plain(experiment, folder)
    for row in rows:
        forgotten = FORGOTTEN[experiment.name][row["target"]]
        forget = row["forget"]["clients"]

        def look(branch, round=row["round"], of=(forget, forgotten)):
            return plain.accuracies(branch, round, *of), plain.vector(branch, round).double()

        mine, vector = look(branch_of(experiment, row))
        retrain, retrain_vector = look(f"retrain-{row['target']}-s1")
        second, second_vector = look(f"floor-{row['target']}-s1")
        for name, value in mine.items():
            assert row["metrics"][name] == pytest.approx(value, abs=1e-5), (row["label"], row["at"], name)
            assert row["gap"][name] == pytest.approx(value - retrain[name], abs=1e-5)
            assert row["floor"][name] == pytest.approx(abs(second[name] - retrain[name]), abs=1e-5)
        distance = float((vector - retrain_vector).norm())
        assert row["metrics"]["l2_to_retrain"] == pytest.approx(distance, abs=1e-5)
        assert row["gap"]["l2_to_retrain"] == pytest.approx(distance, abs=1e-5)
        noise = float((second_vector - retrain_vector).norm())
        assert row["floor"]["l2_to_retrain"] == pytest.approx(noise, abs=1e-5)
    assert any(abs(row["gap"]["forget_accuracy"]) > 5 for row in rows)
    assert any(row["floor"]["forget_accuracy"] > 1 for row in rows)


def test_every_row_tells_whom_it_is_about(finished):
    experiment, _, rows = finished
    for row in rows:
        assert (row["seed"], row["method"]) == (1, row["label"].partition("-")[0])
        sets = FORGOTTEN[experiment.name]
        if row["request"] is None:
            assert row["forget"]["clients"] == list(sets[row["target"]])
    asked = {row["request"]: row["forget"]["clients"] for row in rows if row["request"]}
    assert (
        asked
        == {
            "tiny": {"target-0": [1], "target-1": [0, 3]},
            "scripted-timeline": {"request-1": [5], "request-2": [0], "request-3": [2, 4], "request-4": [1]},
        }[experiment.name]
    )


def test_accuracy_per_client_and_per_class_where_it_is_asked_for(targets_run, timeline_run):
    plain = Plain(TARGETS, targets_run)
    data = plain.data
    for row in read_scorecard(targets_run)["rows"]:
        branch = branch_of(TARGETS, row)
        train = plain.correct(branch, row["round"], data.train_images, data.train_labels)
        test = plain.correct(branch, row["round"], data.test_images, data.test_labels)
        expected = [100 * train[rows].mean() for rows in data.clients]
        assert row["per_client"] == pytest.approx(expected, abs=1e-5)
        expected = [100 * test[data.test_labels.numpy() == c].mean() for c in range(4)]
        assert row["per_class"] == pytest.approx(expected, abs=1e-5)
    for row in read_scorecard(timeline_run)["rows"]:
        assert row.keys().isdisjoint({"per_client", "per_class"})


# -- which rows there are, and what they cost -----------------------------------------------------------------

# (request, label, at): round, client-epochs. With five clients, one or two of them forgotten; the special
# round is of the forgotten alone, the regular one of all.
TARGET_ROWS = {
    ("target-0", "original", "request"): (3, 3 * 5),
    ("target-0", "retrain", "request"): (3, 3 * 4),
    ("target-0", "retrain", "compare"): (5, 5 * 4),
    ("target-0", "retrain", "cap"): (6, 6 * 4),
    ("target-0", PUF, "unlearned"): (4, 1),
    ("target-0", PUF, "recovered"): (5, 1 + 4),
    ("target-0", PUF, "compare"): (5, 1 + 4),
    ("target-0", PUF, "cap"): (6, 1 + 4 + 4),
    ("target-0", NATURAL, "unlearned"): (4, 4),
    ("target-0", NATURAL, "recovered"): (4, 4),
    ("target-0", NATURAL, "compare"): (5, 4 + 4),
    ("target-0", NATURAL, "cap"): (6, 4 + 4 + 4),
    ("target-0", REGULAR, "unlearned"): (4, 5),
    ("target-0", REGULAR, "recovered"): (6, 5 + 4 + 4),
    ("target-0", REGULAR, "compare"): (5, 5 + 4),
    ("target-0", REGULAR, "cap"): (6, 5 + 4 + 4),
    # PUF never recovers here: no round to compare at, and its row at the cap is kept.
    ("target-1", "original", "request"): (3, 3 * 5),
    ("target-1", "retrain", "request"): (3, 3 * 3),
    ("target-1", "retrain", "cap"): (6, 6 * 3),
    ("target-1", PUF, "unlearned"): (4, 2),
    ("target-1", PUF, "cap"): (6, 2 + 3 + 3),
    ("target-1", NATURAL, "unlearned"): (4, 3),
    ("target-1", NATURAL, "recovered"): (4, 3),
    ("target-1", NATURAL, "cap"): (6, 3 + 3 + 3),
    ("target-1", REGULAR, "unlearned"): (4, 5),
    ("target-1", REGULAR, "recovered"): (5, 5 + 3),
    ("target-1", REGULAR, "cap"): (6, 5 + 3 + 3),
}

# Four of seven clients per round, two epochs each. Forgotten after rounds 2, 3 and 5: one, three and one.
TIMELINE_ROWS = {
    (None, "original", "final"): (5, 2 * 5 * 4),
    ("request-2", "original", "request"): (2, 2 * 2 * 4),
    ("request-2", "retrain", "request"): (2, 2 * 2 * 4),
    ("request-2", PUF, "unlearned"): (3, 2 * 1),
    ("request-2", NATURAL, "unlearned"): (3, 2 * 4),
    ("request-2", NATURAL, "recovered"): (3, 2 * 4),
    ("request-2", REGULAR, "unlearned"): (3, 2 * (1 + 3)),
    ("request-2", REGULAR, "recovered"): (3, 2 * (1 + 3)),
    **{
        (request, label, at): cost
        for request in ("request-3", "request-4")
        for (label, at), cost in {
            ("original", "request"): (3, 2 * 3 * 4),
            ("retrain", "request"): (3, 2 * 3 * 3),
            ("retrain", "compare"): (5, 2 * 5 * 3),
            (PUF, "unlearned"): (4, 2 * 3),
            (PUF, "recovered"): (5, 2 * (3 + 3)),
            (PUF, "compare"): (5, 2 * (3 + 3)),
            (NATURAL, "unlearned"): (4, 2 * 3),
            (NATURAL, "recovered"): (4, 2 * 3),
            (NATURAL, "compare"): (5, 2 * (3 + 3)),
            (REGULAR, "unlearned"): (4, 2 * (3 + 1)),
            (REGULAR, "compare"): (5, 2 * (3 + 1 + 3)),
        }.items()
    },
    ("request-1", "original", "request"): (5, 2 * 5 * 4),
    ("request-1", "retrain", "request"): (5, 2 * 5 * 2),
    ("request-1", "retrain", "compare"): (8, 2 * 8 * 2),
    ("request-1", PUF, "unlearned"): (6, 2 * 1),
    ("request-1", PUF, "recovered"): (8, 2 * (1 + 2 + 2)),
    ("request-1", PUF, "compare"): (8, 2 * (1 + 2 + 2)),
    # Natural forgetting had recovered in round 6, where its federation ended: nothing to compare in round 8.
    ("request-1", NATURAL, "unlearned"): (6, 2 * 2),
    ("request-1", NATURAL, "recovered"): (6, 2 * 2),
    ("request-1", REGULAR, "unlearned"): (6, 2 * (1 + 2)),
    ("request-1", REGULAR, "compare"): (8, 2 * (1 + 2 + 2 + 2)),
    ("request-1", REGULAR, "cap"): (9, 2 * (1 + 2 + 2 + 2 + 2)),
    # The end is about all requests, and costs what it took since the first.
    (None, PUF, "final"): (8, 2 * (1 + 3 + 3 + 1 + 2 + 2)),
    (None, NATURAL, "final"): (6, 2 * (4 + 3 + 3 + 2)),
    (None, REGULAR, "final"): (9, 2 * (4 + 4 + 3 + 3 + 2 + 2 + 2)),
}


def test_rows_their_rounds_and_client_epochs(finished):
    experiment, _, rows = finished
    expected = TARGET_ROWS if experiment is TARGETS else TIMELINE_ROWS
    found = {(r["request"], r["label"], r["at"]): (r["round"], r["cost"]["client_epochs"]) for r in rows}
    assert found == expected
    assert len(rows) == len(expected), "each once"


def test_bytes_are_one_model_per_client_and_round_each_way(finished):
    experiment, _, rows = finished
    for row in rows:
        exchanges = row["cost"]["client_epochs"] / experiment.train.local_epochs
        assert row["cost"]["bytes_up"] == row["cost"]["bytes_down"] == exchanges * MODEL_BYTES


def test_seconds_are_those_that_the_rounds_took(finished):
    experiment, folder, rows = finished
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    took = {(m["branch"], m["round"]): m["value"] for m in lines if m["metric"] == "seconds"}
    at_round = {r.clients: r.at_round for r in experiment.forget}
    for row in rows:
        first = 0
        if row["label"] not in ("original", "retrain"):
            first = 3 if experiment.targets else 2
            if row["request"] is not None:
                first = at_round.get(tuple(row["forget"]["clients"]), 3)
        rounds = range(first + 1, row["round"] + 1)
        expected = sum(took[branch_of(experiment, row), r] for r in rounds)
        assert expected > 0
        assert row["cost"]["seconds"] == pytest.approx(expected, abs=1e-5)


# (recovered, recovery rounds) by request and label.
RECOVERY = {
    "tiny": {
        ("target-0", PUF): (True, 2),
        ("target-0", NATURAL): (True, 1),
        ("target-0", REGULAR): (True, 3),
        ("target-1", PUF): (False, None),
        ("target-1", NATURAL): (True, 1),
        ("target-1", REGULAR): (True, 2),
    },
    "scripted-timeline": {
        ("request-2", PUF): (None, None),
        ("request-2", NATURAL): (True, 1),
        ("request-2", REGULAR): (True, 1),
        **{
            (request, label): found
            for request in ("request-3", "request-4")
            for label, found in {PUF: (True, 2), NATURAL: (True, 1), REGULAR: (None, None)}.items()
        },
        ("request-1", PUF): (True, 3),
        ("request-1", NATURAL): (True, 1),
        ("request-1", REGULAR): (False, None),
        (None, PUF): (None, None),
        (None, NATURAL): (None, None),
        (None, REGULAR): (None, None),
    },
}
WHY = {
    None: "recovery: taken over by a later request",
    False: "recovery: censored, not within {} rounds",
}


def test_recovery_is_told_on_every_row_of_a_method_and_censored_runs_are_kept(finished):
    experiment, _, rows = finished
    methods = [row for row in rows if row["label"] not in ("original", "retrain")]
    found = {}
    for row in methods:
        found.setdefault((row["request"], row["label"]), set()).add(
            (row["recovered"], row["recovery_rounds"])
        )
        if row["request"] is not None and row["recovered"] is not True:
            assert WHY[row["recovered"]].format(experiment.recover.max_rounds) in row["reason"]
    assert found == {place: {value} for place, value in RECOVERY[experiment.name].items()}
    for row in rows:
        if row not in methods:
            assert (row["recovered"], row["recovery_rounds"], row["scale"]) == (None, None, None)


def test_the_scale_is_shown_raw_per_client_and_for_the_group(finished):
    experiment, folder, rows = finished
    sizes = [len(rows) for rows in workspace.data_of(experiment, 1).clients]
    run = RunDirectory(folder)
    plans = {
        (name, p.round): p.plan for name in run.ledger.branches() for p in run.ledger.plans(name) if p.plan
    }
    run.close()
    seen = set()
    for row in rows:
        if row["method"] != "puf" or row["request"] is None:
            assert row["scale"] is None
            continue
        unlearned = next(r for r in rows if r["at"] == "unlearned" and same_request(r, row))
        plan = plans[branch_of(experiment, row), unlearned["round"]]
        total = sum(sizes[k] for k in (*plan["forget"], *plan["train"]))
        raw = {PUF: 2.0, REGULAR: 4.0}[row["label"]]
        effective = {str(k): pytest.approx(raw * sizes[k] / total, abs=1e-5) for k in plan["forget"]}
        group = raw * sum(sizes[k] for k in plan["forget"]) / total
        assert row["scale"] == {
            "raw": raw,
            "effective": effective,
            "group": pytest.approx(group, abs=1e-5),
        }
        assert set(row["forget"]["clients"]) <= {int(k) for k in row["scale"]["effective"]}
        seen.add((row["label"], len(effective), bool(plan["train"])))
    assert {(PUF, 1, False), (REGULAR, 1, True)} <= seen
    assert any(label == REGULAR and size > 1 for label, size, _ in seen)


def same_request(one, other):
    return (one["request"], one["label"]) == (other["request"], other["label"])


# -- clients that do not answer -------------------------------------------------------------------------------


def test_a_request_that_had_to_wait_and_clients_that_failed(tmp_path, monkeypatch):
    """Client 1, to be forgotten after round 3, first answers in round 5; client 2 drops out of round 2."""
    train = Classification.train

    def flaky(self, client, kind, config, tensors):
        if client == {2: 2, 4: 1}.get(config["round"]):
            raise ConnectionError("not now")
        return train(self, client, kind, config, tensors)

    monkeypatch.setattr(Classification, "train", flaky)
    experiment = tiny("federation.quorum=0.5", "method[1].mode=regular")
    script = {"puf-regular-20": {(1,): 5}, "natural": {(1,): NEVER}}
    rows = read_scorecard(scripted(experiment, script, tmp_path))["rows"]
    puf = {row["at"]: row for row in rows if row["method"] == "puf"}
    assert {at: row["round"] for at, row in puf.items()} == {
        "unlearned": 5,
        "recovered": 5,
        "compare": 5,
        "cap": 6,
    }
    assert puf["cap"]["recovery_rounds"] == 1, "the unlearning round counts, the wait for it does not"
    cost = puf["unlearned"]["cost"]
    assert cost["client_epochs"] == 3 + 4, "all four are asked in rounds 4 and 5, and one fails once"
    assert cost["bytes_up"] == 7 * MODEL_BYTES
    assert cost["bytes_down"] == 8 * MODEL_BYTES, "what a client was sent has travelled, answer or not"
    (original,) = (row for row in rows if row["label"] == "original")
    assert original["cost"]["client_epochs"] == 4 + 3 + 4
    assert not {row["at"] for row in rows if row["label"] == "natural"} & {"recovered"}


def test_a_routine_costs_its_own_passes_as_forecast(tmp_path):
    """Whatever train.local-epochs says; two epochs of SCRUB, one an ascent, are 1.5 passes over F and 3 over R."""
    half = TINY.replace("targets = [[1]]", "target = [{clients = [1], samples = 0.5}]")
    routines = {"gradient-ascent": "{epochs=7}", "scrub": "{epochs=2, msteps=1, rewind=false}"}
    methods = [f'{{name="local-routine", routine="{r}", settings={s}}}' for r, s in routines.items()]
    for part, method in ((False, methods[0]), (True, methods[0]), (True, methods[1])):
        text = half if part else TINY
        experiment = tiny(f"method=[{method}]", "recover.max-rounds=2", "train.local-epochs=2", text=text)
        rows = read_scorecard(simulate(experiment, out=tmp_path / f"{part}-{len(method)}"))["rows"]
        cost = {r["at"]: r["cost"] for r in rows if r["method"] == "local-routine"}
        size = int(workspace.data_of(experiment, 1).clients.sizes[1])
        forget = round(0.5 * size) if part else size
        over_forget, over_retain = (1.5, 3) if "scrub" in method else (7, 0)
        own = (over_forget * forget + over_retain * (size - forget)) / size
        assert cost["unlearned"]["client_epochs"] == math.ceil(own)
        assert cost["unlearned"]["bytes_up"] == MODEL_BYTES
        trained = 2 * (4 if part else 3)  # who forgets a part goes on with the rest
        assert cost["cap"]["client_epochs"] == math.ceil(own + trained)
        (found,) = (b for b in forecast(experiment).branches if b.branch.kind == "method")
        assert cost["cap"]["client_epochs"] == found.client_epochs


def test_a_fixed_number_of_recovery_rounds_is_not_judged(tmp_path):
    folder = simulate(tiny("recover.until=max-rounds"), out=tmp_path)
    rows = [r for r in json.loads((folder / "scorecard.json").read_text())["rows"] if r["label"] == "natural"]
    assert [row["at"] for row in rows] == ["unlearned", "cap"], "nobody recovered, nothing to compare at"
    for row in rows:
        assert (row["recovered"], row["recovery_rounds"]) == (None, None)
        assert "not judged" in row["reason"]
