"""The cache: entries come back whole under any name, whoever dies or writes beside."""

import os
from dataclasses import replace

import pytest
import torch

from fedunlearn.runs.checkpoints import Snapshot
from fedunlearn.runs.directory import RunDirectory
from fedunlearn.runs.metrics_log import Metric
from fedunlearn.server.branch import Branch
from fedunlearn.simulation.cache import Cache, digest_of
from tests.e2e.tiny import everything, tiny
from tests.e2e.tiny import run as computed
from tests.simulation.cached import has_branch

# -- branches in and out --------------------------------------------------------------------------------------


def open_run(folder):
    """Return a run directory to write to; its experiment does not matter."""
    return RunDirectory.open(tiny("cache=true"), folder)


def fill(run, name, rounds=(3, 4, 7)):
    """Put a finished branch into a run: checkpoints, metrics, ledger."""
    for round in rounds:
        vector = torch.full((3,), float(round))
        run.checkpoints(name).save(Snapshot(round, vector, {"b": torch.tensor(round)}, {"requests": []}))
    run.metrics.append(metric(name, r) for r in rounds)
    run.metrics.append([metric("another", 1)])
    ledger = run.ledger
    ledger.submit(name, request_id="request-1", clients=[2], at_round=3)
    ledger.commit_plan(name, 4, {"train": [0], "forget": [2], "requests": ["request-1"]})
    ledger.record_failures(name, 4, {0: "lost"})
    ledger.transition(name, "request-1", "unlearning", round=4)


def metric(branch, round):
    return Metric(branch, round, "server", "test", "accuracy", 10.0 * round, 0.5)


OUTCOME = {"requests": [{"id": "request-1", "unlearned_round": 4, "outcome": "recovered"}], "last_round": 7}
KEY = digest_of("some branch")


def branch(name):
    return Branch(name=name, kind="method", label="x", seed=1, training_seed=1, last_round=7)


@pytest.fixture
def stored(tmp_path):
    """A cache that holds one branch, and the run that it came from."""
    run = open_run(tmp_path / "one")
    fill(run, "puf-0-s1")
    fill(run, "puf-0-s11", rounds=(5,))
    cache = Cache(tmp_path / "cache")
    assert not has_branch(cache, KEY)
    cache.store_branch(KEY, run, "puf-0-s1", OUTCOME)
    yield cache, run
    run.close()


def files(run, name):
    """Return a branch's checkpoint files by what follows its name."""
    folder = run.path / "checkpoints"
    return {p.name.removeprefix(name): p.read_bytes() for p in folder.glob(f"{name}-r*")}


def ledger_of(run, name):
    audit = [replace(entry, seq=0, branch="", hash="") for entry in run.ledger.audit(name)]
    return run.ledger.requests(name), run.ledger.plans(name), audit


def test_a_branch_comes_back_under_another_name_with_all_it_had(stored, tmp_path):
    cache, run = stored
    other = open_run(tmp_path / "two")
    assert has_branch(Cache(tmp_path / "cache"), KEY)
    assert cache.load_branch(KEY, other, branch("mine-3-s1")) == OUTCOME
    assert files(other, "mine-3-s1") == files(run, "puf-0-s1")
    assert len(files(run, "puf-0-s1")) == 6
    assert other.checkpoints("mine-3-s1").rounds() == [3, 4, 7]
    assert list(other.metrics.of("mine-3-s1").values()) == [metric("mine-3-s1", r) for r in (3, 4, 7)]
    assert ledger_of(other, "mine-3-s1") == ledger_of(run, "puf-0-s1")
    assert other.ledger.branches() == ["mine-3-s1"], "and nothing that it did not have"
    other.close()


def test_loading_replaces_what_an_interrupted_computation_left(stored, tmp_path):
    cache, run = stored
    fill(run, "half", rounds=(1, 2, 3))
    # An orphan of a checkpoint that was being deleted, and that the cache has too, under another key.
    other = tmp_path / "other.json"
    other.write_text("of another branch")
    os.link(other, run.path / "checkpoints" / "half-r0004.json")
    cache.load_branch(KEY, run, branch("half"))
    cache.load_branch(KEY, run, branch("half"))
    assert files(run, "half") == files(run, "puf-0-s1")
    assert ledger_of(run, "half") == ledger_of(run, "puf-0-s1")
    assert other.read_text() == "of another branch", "replaced by name, not written into"


def test_neither_a_run_that_goes_on_nor_one_that_is_deleted_changes_the_cache(stored, tmp_path):
    cache, run = stored
    expected = files(run, "puf-0-s1")
    other = open_run(tmp_path / "two")
    cache.load_branch(KEY, other, branch("a"))
    other.checkpoints("a").save(Snapshot(7, torch.zeros(1)))
    cache.load_branch(KEY, other, branch("b"))
    assert files(other, "b") == expected
    other.clear()
    run.checkpoints("puf-0-s1").delete(3)
    third = open_run(tmp_path / "three")
    cache.load_branch(KEY, third, branch("c"))
    assert files(third, "c") == expected
    third.close()


def test_copies_do_where_there_are_no_links(stored, tmp_path, monkeypatch):
    cache, run = stored

    def refuse(*_):
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    cache.store_branch("b" * 64, run, "puf-0-s1", OUTCOME)
    cache.load_branch("b" * 64, run, branch("copied"))
    assert files(run, "copied") == files(run, "puf-0-s1")


# -- crashes and others ---------------------------------------------------------------------------------------


def left_over(cache_folder):
    return [p.name for p in cache_folder.rglob("*") if p.name.startswith(".") or p.suffix == ".tmp"]


def test_a_writer_that_dies_half_way_leaves_no_entry(tmp_path, monkeypatch):
    run = open_run(tmp_path / "one")
    fill(run, "a")
    cache = Cache(tmp_path / "cache")

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run.ledger, "export", die)
    with pytest.raises(KeyboardInterrupt):
        cache.store_branch(KEY, run, "a", OUTCOME)
    assert not has_branch(cache, KEY)
    monkeypatch.undo()
    cache.store_branch(KEY, run, "a", OUTCOME)
    assert cache.load_branch(KEY, run, branch("b")) == OUTCOME
    run.close()


def test_of_two_writers_at_once_one_wins_and_neither_fails(tmp_path, monkeypatch):
    run = open_run(tmp_path / "one")
    fill(run, "a")
    cache, export = Cache(tmp_path / "cache"), run.ledger.export

    def overtaken(name):
        monkeypatch.undo()
        Cache(tmp_path / "cache").store_branch(KEY, run, "a", OUTCOME | {"by": "the other"})
        return export(name)

    monkeypatch.setattr(run.ledger, "export", overtaken)
    cache.store_branch(KEY, run, "a", OUTCOME)
    assert cache.load_branch(KEY, run, branch("b"))["by"] == "the other"
    cache.store_branch(KEY, run, "a", OUTCOME)
    assert cache.load_branch(KEY, run, branch("b"))["by"] == "the other", "an entry is never changed"
    assert left_over(tmp_path / "cache") == []
    run.close()


def test_measures_come_back_and_unknown_ones_are_none(tmp_path):
    cache = Cache(tmp_path / "cache")
    assert cache.measures(KEY) is None
    measures = {"values": {"mia_svc": None, "test_accuracy": 1 / 3}, "reason": "mia_svc: too few"}
    cache.store_measures(KEY, measures)
    assert Cache(tmp_path / "cache").measures(KEY) == measures
    assert cache.measures(digest_of("another")) is None
    assert not has_branch(cache, KEY)


def test_two_processes_may_store_the_same_measures_at_once(tmp_path, monkeypatch):
    """The other one comes in when this one's content is written but not yet under its name."""
    cache, fsync, process = Cache(tmp_path / "cache"), os.fsync, os.getpid()

    def overtaken(descriptor):
        monkeypatch.undo()
        monkeypatch.setattr(os, "getpid", lambda: process + 1)
        Cache(tmp_path / "cache").store_measures(KEY, {"a": 1})
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", overtaken)
    cache.store_measures(KEY, {"a": 1})
    assert cache.measures(KEY) == {"a": 1}
    assert [p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()] == [f"{KEY}.json"]


# -- damage ---------------------------------------------------------------------------------------------------


def as_link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def as_folder(path):
    path.unlink()
    path.mkdir()


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "emptied": lambda path: path.write_bytes(b""),
    "one bit": flip,
    "other content": lambda path: path.write_bytes(b"{}"),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "a folder": as_folder,
    "a link": as_link,
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("file", ["-r0003.safetensors", "-r0004.json", "branch.json"])
def test_a_damaged_entry_is_a_miss_and_is_stored_anew(file, damage, stored, tmp_path):
    cache, run = stored
    (entry,) = (tmp_path / "cache" / "branches").glob("*/*")
    other = open_run(tmp_path / "two")
    fill(other, "mine", rounds=(1, 2))
    # As on a file system without links: the run has files of its own.
    for path in (run.path / "checkpoints").iterdir():
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    damage(entry / file)
    before = files(other, "mine"), ledger_of(other, "mine")
    assert not has_branch(cache, KEY)
    assert cache.load_branch(KEY, other, branch("mine")) is None
    assert (files(other, "mine"), ledger_of(other, "mine")) == before, "nothing of the run is lost by a miss"
    cache.store_branch(KEY, run, "puf-0-s1", OUTCOME)
    assert cache.load_branch(KEY, other, branch("mine")) == OUTCOME
    assert files(other, "mine") == files(run, "puf-0-s1")
    other.close()


def test_whoever_writes_into_a_run_s_file_has_damaged_the_entry_and_no_other_run(stored, tmp_path):
    cache, run = stored
    other = open_run(tmp_path / "two")
    flip(run.checkpoints("puf-0-s1").path(3))
    assert cache.load_branch(KEY, other, branch("mine")) is None
    assert files(other, "mine") == {}
    other.close()


@pytest.mark.parametrize("what", ["a file", "a link", "empty"])
def test_an_entry_that_is_no_folder_of_files_is_a_miss_and_is_stored_anew(what, stored, tmp_path):
    cache, run = stored
    (entry,) = (tmp_path / "cache" / "branches").glob("*/*")
    entry.rename(tmp_path / "moved")
    {
        "a file": entry.touch,
        "a link": lambda: entry.symlink_to(tmp_path / "nowhere"),
        "empty": entry.mkdir,
    }[what]()
    assert cache.load_branch(KEY, run, branch("mine")) is None
    cache.store_branch(KEY, run, "puf-0-s1", OUTCOME)
    assert cache.load_branch(KEY, run, branch("mine")) == OUTCOME


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_measures_are_a_miss_and_are_stored_anew(damage, tmp_path):
    cache = Cache(tmp_path / "cache")
    cache.store_measures(KEY, {"values": [1.5, None]})
    (path,) = (tmp_path / "cache").rglob("*.json")
    damage(path)
    assert cache.measures(KEY) is None
    cache.store_measures(KEY, {"values": [2.5]})
    assert cache.measures(KEY) == {"values": [2.5]}


@pytest.mark.parametrize("what", ["a file", "under a file"])
def test_a_cache_that_cannot_be_written_is_a_note_and_no_failure(what, stored, tmp_path):
    _, run = stored
    (tmp_path / "file").touch()
    told = []
    cache = Cache(tmp_path / "file" if what == "a file" else tmp_path / "file" / "cache", told.append)
    cache.store_branch(KEY, run, "puf-0-s1", OUTCOME)
    cache.store_measures(KEY, {"a": 1})
    assert not has_branch(cache, KEY) and cache.measures(KEY) is None
    (line,) = told
    assert "cannot be written (" in line and str(tmp_path / "file") in line


def test_a_run_whose_cache_is_damaged_computes_again_what_it_lost(tmp_path):
    experiment = tiny("cache=true")
    first = everything(computed(experiment, tmp_path))
    for entry in (tmp_path / ".cache").rglob("*.safetensors"):
        content = entry.read_bytes()
        entry.unlink()
        entry.write_bytes(content[: len(content) // 2])
    again = computed(experiment, tmp_path)
    assert everything(again) == first
    assert not any(record["cached"] for record in RunDirectory(again).branches().values())
    third = computed(experiment, tmp_path)
    assert everything(third) == first
    assert all(record["cached"] for record in RunDirectory(third).branches().values())
