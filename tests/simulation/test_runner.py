"""A whole run: what it logs, what its records say, and whose checkpoints it refuses to go on from."""

import json
import shutil

import pytest
import torch

from fedunlearn import workspace
from fedunlearn.config import with_engine
from fedunlearn.errors import RunError, UserError
from fedunlearn.evaluation.scorecard import dumps
from fedunlearn.plugins import load_object
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.runs.metrics_log import read_metrics
from fedunlearn.server.recovery import RetrainReference
from fedunlearn.simulation import runner
from fedunlearn.simulation.branches import branches
from fedunlearn.simulation.cache import Cache
from fedunlearn.simulation.progress import Progress
from fedunlearn.simulation.runner import CACHE_VARIABLE, cache_folder, read_scorecard, simulate
from tests.e2e.tiny import TIMELINE, checkpoints, tiny
from tests.simulation.cached import has_branch
from tests.simulation.scripted import TARGETS
from tests.simulation.scripted import TIMELINE as SCRIPTED


def logged(folder, branch, **wanted):
    """Return (round, value) of a branch's metrics that match."""
    found = (m for m in read_metrics(folder / "metrics.jsonl") if m.branch == branch)
    return [(m.round, m.value) for m in found if all(getattr(m, k) == v for k, v in wanted.items())]


# -- what is logged -------------------------------------------------------------------------------------------


def test_every_round_of_every_branch_is_logged_once_from_the_same_beginning(targets_run):
    for branch in branches(TARGETS, 1):
        rounds = list(range(branch.first_round + 1, branch.last_round + 1))
        beginning = [0] if branch.first_round == 0 else []
        for split in ("test", "validation"):
            for metric in ("accuracy", "loss"):
                found = logged(targets_run, branch.name, entity="server", split=split, metric=metric)
                assert [round for round, _ in found] == beginning + rounds
        assert [r for r, _ in logged(targets_run, branch.name, metric="seconds")] == beginning + rounds
    start = {
        value
        for branch in ("original-s1", "retrain-0-s1", "retrain-1-s1")
        for round, value in logged(targets_run, branch, split="test", metric="loss")
        if round == 0
    }
    assert len(start) == 1, "from the same initial weights"


def test_the_log_agrees_with_the_scorecard(targets_run):
    rows = [r for r in read_scorecard(targets_run)["rows"] if r["label"] not in ("original", "retrain")]
    for row in rows:
        branch = f"{row['label']}-{row['target']}-s1"
        for split in ("test", "forget", "retain", "validation"):
            found = dict(logged(targets_run, branch, split=split, metric="accuracy"))
            assert found[row["round"]] == pytest.approx(row["metrics"][f"{split}_accuracy"], abs=1e-5)


def test_the_original_is_watched_on_each_client_that_will_be_forgotten(targets_run):
    watched = {
        m.entity
        for m in read_metrics(targets_run / "metrics.jsonl")
        if (m.branch, m.split, m.metric) == ("original-s1", "forget", "accuracy")
    }
    assert watched == {"client-0", "client-1", "client-3"}


def test_losses_and_coefficients_of_clients_are_logged(targets_run):
    found = {
        (m.round, m.entity)
        for m in read_metrics(targets_run / "metrics.jsonl")
        if (m.branch, m.split, m.metric) == ("puf-special-2-1-s1", "train", "loss")
    }
    assert found == {
        *((4, f"client-{k}") for k in (0, 3)),
        *((round, f"client-{k}") for k in (1, 2, 4) for round in (5, 6)),
    }
    coefficients = logged(targets_run, "puf-special-2-1-s1", metric="coefficient")
    assert [round for round, _ in coefficients] == [4, 4]
    assert sum(value for _, value in coefficients) == pytest.approx(2.0)


def test_records_of_branches_say_how_each_ended(timeline_run):
    records = json.loads((timeline_run / "branches.json").read_text())
    assert [r["branch"] for r in records] == [b.name for b in branches(SCRIPTED, 1)]
    (puf,) = (r for r in records if r["label"] == "puf-special-2")
    assert (puf["kind"], puf["first_round"], puf["last_round"]) == ("method", 2, 8)
    assert (puf["seed"], puf["target"], puf["forget"], puf["cached"]) == (1, None, [0, 1, 2, 4, 5], False)
    assert {r["id"]: (r["outcome"], r["state"], r["ended_round"]) for r in puf["requests"]} == {
        "request-1": ("recovered", "forgotten", 8),
        "request-2": ("superseded", "superseded", 4),
        "request-3": ("recovered", "forgotten", 5),
        "request-4": ("recovered", "forgotten", 5),
    }
    (natural,) = (r for r in records if r["label"] == "natural")
    assert {r["state"] for r in natural["requests"]} == {"excluded"}, "never called forgotten"
    assert len({r["key"] for r in records}) == len(records)


def test_records_of_branches_say_what_computed_them_and_how_many_workers_the_cluster_had(
    tmp_path, monkeypatch
):
    def three_workers(experiment, path, seed):
        grid = open_grid(with_engine(experiment, name="local", workers=1), path, seed)
        grid.workers = 3
        return grid

    class Notes(Progress):
        told = ()

        def note(self, text):
            self.told = (*self.told, text)

    open_grid, progress = runner.open_grid, Notes()
    monkeypatch.setattr(runner, "open_grid", three_workers)
    shortest = ("cache=true", "train.rounds=1", "recover.max-rounds=1")
    run = simulate(tiny(*shortest, "engine.name=ray"), out=tmp_path, progress=progress)
    records = json.loads((run / "branches.json").read_text())
    assert [r["engine"] for r in records] == [{"name": "ray", "workers": 3}] * len(records)
    assert progress.told == ("engine ray: the cluster has room for 3 worker(s)",)
    run = simulate(tiny(*shortest), out=tmp_path)
    assert not any("engine" in r for r in json.loads((run / "branches.json").read_text())), (
        "all from the cache"
    )


def test_a_local_engine_s_workers_are_those_asked_for(targets_run):
    records = json.loads((targets_run / "branches.json").read_text())
    assert [r["engine"] for r in records] == [{"name": "local", "workers": 1}] * len(records)


def test_the_partition_is_written_by_seed(targets_run):
    data = workspace.data_of(TARGETS, 1)
    (content,) = json.loads((targets_run / "partition.json").read_text()).values()
    assert content["counts"] == [
        torch.bincount(data.train_labels[rows], minlength=4).tolist() for rows in data.clients
    ]
    assert content["classes"] == list(data.class_names)


def test_the_scorecard_file_is_canonical(targets_run):
    text = (targets_run / "scorecard.json").read_text()
    card = read_scorecard(targets_run)
    assert dumps(card) == text
    assert (card["schema"], card["experiment"], card["run"]) == (2, "tiny", targets_run.name)


# -- what recovery is judged by -------------------------------------------------------------------------------


def test_a_method_begins_at_its_fork_and_is_judged_by_the_logged_accuracies_of_its_oracles(
    tmp_path, monkeypatch
):
    judged, forks = {}, {}
    serve = runner.serve

    def noted(grid, experiment, branch, **others):
        judged[branch.name], forks[branch.name] = others["references"], others["fork"]
        return serve(grid, experiment, branch, **others)

    monkeypatch.setattr("fedunlearn.simulation.runner.serve", noted)
    folder = simulate(tiny(text=TIMELINE), out=tmp_path)
    kept = Checkpoints(folder / "checkpoints", "original-s1")
    assert kept.rounds() == [2, 3]
    for name, fork in forks.items():
        if "timeline" in name:
            assert (fork.round, torch.equal(fork.vector, kept.load(2).vector)) == (2, True)
        else:
            assert fork is None, "from the initial weights"
    assert judged.pop("original-s1") == {}

    def reference(oracle):
        validation = dict(logged(folder, oracle, split="validation", metric="accuracy"))
        test = dict(logged(folder, oracle, split="test", metric="accuracy"))
        return RetrainReference(validation=validation, test_at_end=test[3])

    oracles = {frozenset({0}): reference("retrain-0-s1"), frozenset({0, 2}): reference("retrain-1-s1")}
    assert oracles[frozenset({0})].validation.keys() == set(range(6))
    assert oracles[frozenset({0, 2})].validation.keys() == set(range(7))
    for name, references in judged.items():
        assert references == ({} if "timeline" not in name else oracles)


# -- whose checkpoints may be continued -----------------------------------------------------------------------


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "killed half way"])
def test_a_run_of_other_code_is_not_resumed(finished, tmp_path, monkeypatch):
    """Or its weights would be cached and shown as those of this code."""
    experiment = tiny("cache=true")

    class Killed(BaseException):
        pass

    if not finished:
        save = Checkpoints.save

        def killed(self, snapshot):
            save(self, snapshot)
            if snapshot.round == 2:
                raise Killed

        monkeypatch.setattr(Checkpoints, "save", killed)
        with pytest.raises(Killed):
            simulate(experiment, out=tmp_path)
        monkeypatch.undo()
    else:
        folder = simulate(experiment, out=tmp_path)
    monkeypatch.setattr("fedunlearn.simulation.cache.source_of", lambda *roots, alone: f"edited {roots}")
    with pytest.raises(
        UserError, match=r"original-s1 was computed by different code.*; add --fresh to start"
    ):
        simulate(experiment, out=tmp_path, resume=True)
    folder = simulate(experiment, out=tmp_path, fresh=True)
    records = json.loads((folder / "branches.json").read_text())
    assert not any(record["cached"] for record in records), "the cache holds nothing under the new keys"
    assert all(has_branch(Cache(tmp_path / ".cache"), record["key"]) for record in records)


# -- deleted checkpoints --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["*", "retrain-0-s1-r*", "original-s1-r0003.safetensors"])
def test_deleted_checkpoints_of_a_finished_run_come_from_the_cache_again(pattern, tmp_path):
    experiment = tiny("cache=true")
    folder = simulate(experiment, out=tmp_path)
    kept = checkpoints(folder)
    for file in (folder / "checkpoints").glob(pattern):
        file.unlink()
    shutil.rmtree(tmp_path / ".cache" / "measures")
    assert checkpoints(folder) != kept
    assert simulate(experiment, out=tmp_path, resume=True) == folder
    assert checkpoints(folder) == kept


def test_deleted_checkpoints_that_are_not_in_the_cache_have_a_remedy(tmp_path):
    folder = simulate(tiny(), out=tmp_path)
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(RunError, match=r"safetensors: is missing; delete the run directory, or add --fresh$"):
        simulate(tiny(), out=tmp_path, resume=True)


# -- small things ---------------------------------------------------------------------------------------------


def test_objects_are_found_by_reference():
    assert load_object("fedunlearn.simulation.runner:simulate") is simulate


def test_the_cache_lies_beside_the_runs_or_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    assert cache_folder(tmp_path) == tmp_path / ".cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "shared"))
    assert cache_folder(tmp_path / "runs") == tmp_path / "shared"
