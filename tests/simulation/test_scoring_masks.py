"""A whole run on masks: what is logged, judged and scored, recomputed from checkpoints with pixel loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord

from fedunlearn import config, workspace
from fedunlearn.data.slice_index import SliceIndex
from fedunlearn.errors import DivergedError
from fedunlearn.evaluation.metrics import BUILT_IN
from fedunlearn.federation.payload import ModelState, pack
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.runs.directory import RunDirectory
from fedunlearn.runs.metrics_log import read_metrics
from fedunlearn.server.evaluation import ServerEvaluation
from fedunlearn.server.recovery import RetrainReference
from fedunlearn.server.serve import make_strategy
from fedunlearn.simulation.branches import branches
from fedunlearn.simulation.cache import Cache
from fedunlearn.simulation.runner import _Simulation, read_scorecard, simulate
from fedunlearn.simulation.scoring import SeedScoring
from tests.clients import sites
from tests.oracles import segmentation as oracle

EXPERIMENT = config.loads(
    sites.TEXT + '[[method]]\nname = "natural"\n',
    overrides=[
        "targets=[[1], [0, 3]]",
        "cache=false",
        "recover.epsilon=2",
        "measures.per-client=true",
        "measures.per-class=true",
        "measures.pictures=false",
    ],
)
PUF = "puf-special-2"
TEST_SITES = np.array([1, 1, 2, 0, 2, 3, 2])
SPACING = np.random.default_rng(1).uniform(0.5, 1.5, size=(7, 2)).astype(np.float32)


def hand_made():
    """The made-up hospitals, with word of where every slice is from."""
    data = sites.data()

    def index(site, spacing):
        numbers = np.arange(len(site), dtype=np.int64)
        return SliceIndex(np.asarray(site, dtype=np.int64), numbers, numbers, spacing)

    owners = np.repeat(np.arange(sites.NUM_CLIENTS), sites.SLICES)
    ones = np.ones((len(owners), 2), dtype=np.float32)
    slices = {
        "train": index(owners, ones),
        "validation": index([0, 1, 2, 3, 0, 1], ones[:6]),
        "test": index(TEST_SITES, SPACING),
    }
    return replace(data, slices=slices)


@pytest.fixture(scope="module")
def data():
    return hand_made()


@pytest.fixture(scope="module", autouse=True)
def _loaded(data):
    """Whoever loads the experiment's data gets the hand-made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workspace, "_load_data", lambda *_: data)
        yield


@pytest.fixture(scope="module")
def finished(_loaded, tmp_path_factory):
    """The run directory and its scorecard."""
    folder = simulate(EXPERIMENT, out=tmp_path_factory.mktemp("masks"))
    return folder, read_scorecard(folder)


def branch_of(row):
    return "original-s1" if row["label"] == "original" else f"{row['label']}-{row['target']}-s1"


class Plain:
    """A run's checkpoints, looked at pixel by pixel."""

    def __init__(self, folder, data):
        self._folder = folder / "checkpoints"
        self._data = data
        self._model = workspace.new_model(EXPERIMENT, data, seed=9)

    def logits(self, branch, round, split):
        snapshot = Checkpoints(self._folder, branch).load(round)
        self._model.load(snapshot.vector, snapshot.buffers)
        with torch.no_grad():
            return self._model.module.eval()(getattr(self._data, f"{split}_images")).tolist()

    def masks(self, split):
        return getattr(self._data, f"{split}_labels").tolist()

    def dice(self, branch, round, split):
        each = zip(self.logits(branch, round, split), self.masks(split), strict=True)
        return np.array([oracle.mean_dice(oracle.predict(planes), truth) for planes, truth in each])


@pytest.fixture(scope="module")
def plain(finished, data):
    return Plain(finished[0], data)


# -- scored ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_scorecard_says_that_it_is_about_masks_and_has_their_measures(finished):
    _, card = finished
    assert card["task"] == "segmentation"
    assert {(row["label"], row["at"]) for row in card["rows"]} >= {
        ("original", "request"), ("retrain", "request"), (PUF, "unlearned"), (PUF, "cap")
    }  # fmt: skip
    for row in card["rows"]:
        assert list(row["metrics"]) == sorted(name for name in BUILT_IN if "accuracy" not in name)
        null = {name for name, value in row["metrics"].items() if value is None}
        assert null <= {"mia_svc_matched", "mia_yeom_matched", "forget_hausdorff", "test_hausdorff"}
        assert "masks have no label mix" in row["reason"]


def test_dice_of_every_row_is_that_of_the_pixels(finished, plain, data):
    for row in finished[1]["rows"]:
        forget, forgotten = row["forget"]["clients"], {0: [1], 1: [0, 3]}[row["target"]]
        train, test = (plain.dice(branch_of(row), row["round"], split) for split in ("train", "test"))
        retained = [k for k in range(sites.NUM_CLIENTS) if k not in forgotten]
        expected = {
            "forget_dice": train[np.concatenate([data.clients[k] for k in forget])].mean(),
            "retain_dice": train[np.concatenate([data.clients[k] for k in retained])].mean(),
            "test_dice": test.mean(),
            "forget_test_dice": test[np.isin(TEST_SITES, forget)].mean(),
        }
        for name, value in expected.items():
            assert row["metrics"][name] == pytest.approx(value, abs=1e-5), (row["label"], row["at"], name)
        assert row["per_client"] == pytest.approx([train[rows].mean() for rows in data.clients], abs=1e-5)
        assert np.mean(row["per_class"]) == pytest.approx(test.mean(), abs=1e-5)


def test_distances_missed_slices_and_kl_of_every_row(finished, plain):
    seen = set()
    for row in finished[1]["rows"]:
        logits = plain.logits(branch_of(row), row["round"], "test")
        retrain = plain.logits(f"retrain-{row['target']}-s1", row["round"], "test")
        predicted = [oracle.predict(planes) for planes in logits]
        each = zip(predicted, plain.masks("test"), SPACING.tolist(), strict=True)
        found = [value for value in (oracle.hausdorff_95(*one) for one in each) if value is not None]
        missed = 100 * np.mean([not any(map(any, mask)) for mask in predicted])
        assert row["metrics"]["test_missed"] == pytest.approx(missed, abs=1e-5)
        assert row["metrics"]["test_hausdorff"] == (
            pytest.approx(np.mean(found), rel=1e-4) if found else None
        )
        kl = oracle.pixel_kl(retrain, logits)
        assert row["metrics"]["kl_to_retrain"] == pytest.approx(kl, abs=1e-5)
        assert (kl == 0) == (row["label"] == "retrain")
        seen.add(bool(found))
    assert True in seen


def test_retraining_has_no_gap_to_itself_and_floors_are_there(finished):
    for row in finished[1]["rows"]:
        if row["label"] == "retrain":
            assert {value for value in row["gap"].values() if value is not None} == {0}
        assert row["floor"]["forget_dice"] > 0
        assert row["floor"]["kl_to_retrain"] > 0


def test_measures_in_the_cache_are_those_that_were_taken(finished, tmp_path, monkeypatch):
    run = RunDirectory(finished[0])
    plan = {b.name: b for b in branches(EXPERIMENT, 1)}
    question = (plan[f"{PUF}-1-s1"], plan["retrain-1-s1"], 3, (0, 3), (0, 3))
    taken = SeedScoring(EXPERIMENT, run, 1, Cache(tmp_path))._measured(*question)
    monkeypatch.setattr(SeedScoring, "_run_model", lambda *_: pytest.fail("was measured again"))
    assert SeedScoring(EXPERIMENT, run, 1, Cache(tmp_path))._measured(*question) == taken
    run.close()


# -- logged and judged ----------------------------------------------------------------------------------------


def test_every_round_s_dice_is_logged_and_agrees_with_the_scorecard(finished):
    folder, card = finished
    found = {}
    for m in read_metrics(folder / "metrics.jsonl"):
        assert m.metric != "accuracy"
        found[m.branch, m.round, m.entity, m.split, m.metric] = m.value
    for row in card["rows"]:
        for split in ("test", "validation", "retain"):
            if row["label"] == "original" and split == "retain":
                continue
            logged = found[branch_of(row), row["round"], "server", split, "dice"]
            assert logged == pytest.approx(row["metrics"][f"{split}_dice"], abs=1e-5)
    assert {e for b, _, e, s, m in found if (b, s, m) == ("original-s1", "forget", "dice")} == {
        "client-0", "client-1", "client-3"
    }  # fmt: skip


def test_recovery_is_judged_by_dice(finished):
    folder, card = finished
    dice = {
        (m.branch, m.round): m.value
        for m in read_metrics(folder / "metrics.jsonl")
        if (m.split, m.metric) == ("validation", "dice")
    }
    outcomes = set()
    for label in (PUF, "natural"):
        for target in (0, 1):
            mine, retrain = f"{label}-{target}-s1", f"retrain-{target}-s1"
            reached = [t for t in (3, 4) if dice[mine, t] >= dice[retrain, t] - EXPERIMENT.recover.epsilon]
            expected = reached[0] - 2 if reached else None
            rows = [r for r in card["rows"] if (r["label"], r["target"]) == (label, target)]
            assert {row["recovery_rounds"] for row in rows} == {expected}
            outcomes.add(expected)
    assert None in outcomes
    assert len(outcomes) > 1, "some recover and some do not"


def test_the_references_are_the_retrained_models_dice(finished):
    folder, _ = finished
    run = RunDirectory(folder)
    simulation = _Simulation(EXPERIMENT, run, folder.parent, None)
    (puf,) = (b for b in branches(EXPERIMENT, 1) if b.name == f"{PUF}-1-s1")
    (found,) = simulation._references(puf).items()
    log = {
        (m.split, m.round): m.value
        for m in read_metrics(folder / "metrics.jsonl")
        if (m.branch, m.metric, m.entity) == ("retrain-1-s1", "dice", "server")
    }
    validation = {round: value for (split, round), value in log.items() if split == "validation"}
    assert found == (frozenset({0, 3}), RetrainReference(validation, log["test", 2]))
    assert set(validation) == {0, 1, 2, 3, 4}
    run.close()
    assert make_strategy(EXPERIMENT, puf).settings.recovery.quality == "dice"


def test_what_the_server_measures_of_a_round(data):
    (puf,) = (b for b in branches(EXPERIMENT, 1) if b.name == f"{PUF}-0-s1")
    evaluate = ServerEvaluation(EXPERIMENT, data, puf)
    model = workspace.new_model(EXPERIMENT, data, seed=4)
    found = evaluate(3, pack(ModelState(model.vector, model.buffers())))
    assert set(found) == {
        f"{split}-{metric}"
        for split in ("test", "validation", "forget", "retain")
        for metric in ("dice", "loss")
    }
    with torch.no_grad():
        logits = model.module.eval()(data.test_images).tolist()
    each = zip(logits, data.test_labels.tolist(), strict=True)
    expected = np.mean([oracle.mean_dice(oracle.predict(planes), truth) for planes, truth in each])
    assert found["test-dice"] == pytest.approx(expected, abs=1e-9)
    broken: ArrayRecord = pack(ModelState(torch.full_like(model.vector, torch.nan), model.buffers()))
    with pytest.raises(DivergedError, match="the model's outputs are not finite"):
        evaluate(3, broken)
    (oracle_branch,) = (b for b in branches(EXPERIMENT, 1) if b.name == "retrain-0-s1")
    assert not ServerEvaluation(EXPERIMENT, data, oracle_branch)(3, broken), (
        "what it is held against is left out"
    )
