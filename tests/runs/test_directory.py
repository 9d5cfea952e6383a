"""The run directory: who may open it, what is there afterwards, and the one line that says why not."""

import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from fedunlearn import config
from fedunlearn.errors import UserError
from fedunlearn.runs import directory
from fedunlearn.runs.checkpoints import Snapshot
from fedunlearn.runs.directory import RunDirectory, run_name
from fedunlearn.runs.metrics_log import Metric
from tests.e2e.tiny import tiny

CACHED, UNCACHED = tiny("cache=true"), tiny()


def open_run(out, experiment=CACHED, **how):
    return RunDirectory.open(experiment, out, **how)


def leave(out, experiment=CACHED, *, finished=False):
    """Leave a run with something in every place; return its directory."""
    run = open_run(out, experiment)
    run.checkpoints("a").save(Snapshot(1, torch.ones(2)))
    run.metrics.append([Metric("a", 1, "server", "test", "accuracy", 50.0, 0.1)])
    run.ledger.submit("a", request_id="r", clients=[1], at_round=1)
    run.finish_branch({"branch": "a", "key": "k"})
    if finished:
        run.write_json("scorecard.json", {"rows": []})
    run.close()
    return run.path


def contents(run):
    """Return what of a left run is still there."""
    return (
        run.checkpoints("a").rounds(),
        [m.value for m in run.metrics.of("a").values()],
        [r.id for r in run.ledger.requests("a")],
        list(run.branches()),
    )


ALL, NOTHING = ([1], [50.0], ["r"], ["a"]), ([], [], [], [])


def opened(out, experiment=CACHED, **how):
    run = open_run(out, experiment, **how)
    try:
        return contents(run)
    finally:
        run.close()


def refusal(out, experiment=CACHED, **how):
    with pytest.raises(UserError) as caught:
        open_run(out, experiment, **how)
    return str(caught.value)


# -- names and the resolved experiment ------------------------------------------------------------------------


def test_the_name_is_the_experiments_and_a_hash_of_all_that_can_change_a_result(tmp_path):
    name = run_name(CACHED)
    assert name == f"tiny-{config.digest(CACHED)[:8]}"
    same = [tiny("engine.workers=2"), UNCACHED]
    assert {run_name(e) for e in same} == {name}
    others = [tiny("train.lr=0.2"), tiny("recover.epsilon=1"), tiny("seeds=[2]"), tiny("name=other")]
    assert len({run_name(e) for e in others} | {name}) == 5
    run = open_run(tmp_path / "new")
    run.close()
    assert (run.path, run.name) == (tmp_path / "new" / name, name)


def test_the_resolved_experiment_reruns_as_is_and_is_never_rewritten(tmp_path):
    path = leave(tmp_path)
    text = (path / "experiment.toml").read_text()
    assert config.load(path / "experiment.toml") == CACHED
    assert "lr-decay = 1.0" in text, "defaults are written out"
    opened(tmp_path, tiny("cache=true", "engine.workers=2"), resume=True)
    assert (path / "experiment.toml").read_text() == text


# -- new, resumed, fresh --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"fresh": True}], ids=["plain", "resume", "fresh"])
def test_where_nothing_is_every_way_begins(how, tmp_path):
    assert opened(tmp_path, **how) == NOTHING
    assert (tmp_path / run_name(CACHED) / "experiment.toml").is_file()


@pytest.mark.parametrize("experiment", [CACHED, UNCACHED], ids=["cache", "no cache"])
def test_an_unfinished_run_is_not_touched_without_being_told_to(experiment, tmp_path):
    path = leave(tmp_path, experiment)
    with (path / "metrics.jsonl").open("a") as log:
        log.write('{"torn')
    assert refusal(tmp_path, experiment) == (
        f"{path}: holds an unfinished run; add --resume to continue it or --fresh to start over"
    )
    assert (path / "metrics.jsonl").read_text().endswith('{"torn')
    assert opened(tmp_path, experiment, resume=True) == ALL
    assert opened(tmp_path, experiment, fresh=True) == NOTHING


def test_a_finished_run_without_a_cache_is_not_thrown_away_by_mistake(tmp_path):
    path = leave(tmp_path, UNCACHED, finished=True)
    assert refusal(tmp_path, UNCACHED) == (
        f"{path}: holds a finished run and cache = false; see it with `fedunlearn report {path}`, "
        "or add --fresh to run it again"
    )
    assert opened(tmp_path, UNCACHED, resume=True) == ALL
    assert opened(tmp_path, UNCACHED, fresh=True) == NOTHING


def test_a_finished_run_with_a_cache_is_begun_again_as_nothing_is_lost(tmp_path):
    path = leave(tmp_path, finished=True)
    assert opened(tmp_path, resume=True) == ALL
    assert (path / "scorecard.json").exists()
    assert opened(tmp_path) == NOTHING
    assert not (path / "scorecard.json").exists()


def test_a_run_that_died_before_its_experiment_was_written_is_no_run(tmp_path, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(directory, "write_durably", die)
    with pytest.raises(KeyboardInterrupt):
        open_run(tmp_path)
    monkeypatch.undo()
    assert opened(tmp_path) == NOTHING


def test_clearing_takes_everything_and_the_experiment_last(tmp_path, monkeypatch):
    path = leave(tmp_path, finished=True)
    removed = []
    unlink, rmtree = Path.unlink, shutil.rmtree
    monkeypatch.setattr(Path, "unlink", lambda p, **k: (removed.append(p.name), unlink(p, **k)))
    monkeypatch.setattr(shutil, "rmtree", lambda p, **k: (removed.append(p.name), rmtree(p, **k)))
    RunDirectory(path).clear()
    assert removed[-1] == "experiment.toml"
    assert {"checkpoints", "metrics.jsonl", "requests.sqlite", "scorecard.json"} <= set(removed)
    assert [p.name for p in path.iterdir()] == [".lock"]


# -- one at a time --------------------------------------------------------------------------------------------


def hold(out, connection):
    run = open_run(out, resume=True)
    connection.send(run.name)
    connection.recv()
    run.close()


@pytest.fixture
def another_process(tmp_path):
    """A process that has the run open until it is told something, or killed."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=hold, args=(tmp_path, theirs))
    process.start()
    assert ours.poll(30), "the other process did not open the run"
    ours.recv()
    yield process, ours
    process.kill()
    process.join()


@pytest.mark.parametrize("how", [{"resume": True}, {"fresh": True}], ids=["resume", "fresh"])
def test_a_run_that_another_process_writes_is_refused_and_left_alone(how, tmp_path, another_process):
    process, connection = another_process
    path = tmp_path / run_name(CACHED)
    assert refusal(tmp_path, **how) == (
        f"{path}: another process is running it; wait for it or stop it first"
    )
    assert (path / "experiment.toml").exists()
    connection.send("done")
    process.join(30)
    assert process.exitcode == 0
    assert opened(tmp_path, **how) == NOTHING


def test_a_killed_process_holds_nothing(tmp_path, another_process):
    process, _ = another_process
    process.kill()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert opened(tmp_path, resume=True) == NOTHING


def test_the_same_process_does_not_get_it_twice_either(tmp_path):
    run = open_run(tmp_path)
    assert "another process is running it" in refusal(tmp_path, resume=True)
    run.close()
    opened(tmp_path, resume=True)


def test_clearing_does_not_change_the_lock_that_others_wait_at(tmp_path):
    path = leave(tmp_path)
    before = (path / ".lock").stat().st_ino
    opened(tmp_path, fresh=True)
    assert (path / ".lock").stat().st_ino == before


# -- records of branches --------------------------------------------------------------------------------------


def test_records_of_branches_by_name_the_last_one_counts(tmp_path):
    run = open_run(tmp_path)
    assert run.branches() == {}
    run.finish_branch({"branch": "b", "key": "1"})
    run.finish_branch({"branch": "a", "key": "2"})
    run.finish_branch({"branch": "b", "key": "3"})
    run.close()
    again = open_run(tmp_path, resume=True)
    assert again.branches() == {"b": {"branch": "b", "key": "3"}, "a": {"branch": "a", "key": "2"}}
    assert list(again.branches()) == ["b", "a"], "in the order in which they were first finished"
    again.close()


@pytest.mark.parametrize("finished", [False, True])
def test_a_branch_begun_by_other_code_is_not_continued(finished, tmp_path):
    """Its checkpoints would be taken for this code's, and be cached under this code's key."""
    run = open_run(tmp_path)
    if finished:
        run.finish_branch({"branch": "a", "key": "old"})
    else:
        run.begin_branch("a", "old")
        run.begin_branch("b", "new")
    run.close()
    run = open_run(tmp_path, resume=True)
    with pytest.raises(UserError) as caught:
        run.begin_branch("a", "new")
    assert str(caught.value) == (
        f"{run.path}: a was computed by different code, another torch or another processor; "
        "add --fresh to start over"
    )
    run.begin_branch("a", "old")
    run.begin_branch("b", "new")
    run.close()
    run = open_run(tmp_path, fresh=True)
    run.begin_branch("a", "new")
    run.close()


def test_whoever_goes_on_is_told_of_lines_that_hold_no_metric(tmp_path):
    run = RunDirectory.open(tiny(), tmp_path)
    assert run.notes() == []
    run.close()
    (run.path / "metrics.jsonl").write_bytes(b"garbage\n")
    again = RunDirectory.open(tiny(), tmp_path, resume=True)
    assert again.notes() == [f"{run.path / 'metrics.jsonl'}: 1 line holds no metric; skipped"]
    again.close()


@pytest.mark.parametrize("name", ["branches.json", "begun.json"])
@pytest.mark.parametrize("content", [b"[1]", b"{", b"3", b"[{}]", b'[{"branch": 1}]', b"\xff", b"[" * 5000])
def test_a_damaged_record_of_branches_is_one_line_that_says_what_to_do(name, content, tmp_path):
    run = RunDirectory.open(tiny(), tmp_path)
    (run.path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: is damaged \(.*\); add --fresh to start over$"):
        run.begin_branch("a", "key")
    assert (run.path / name).read_bytes() == content
    run.close()


def test_a_folder_that_checkpoints_could_not_be_read_from_again_is_refused(tmp_path):
    out = tmp_path / os.fsdecode(b"\xff")
    with pytest.raises(UserError, match=r"cannot hold runs \(its path is not valid UTF-8\)"):
        RunDirectory.open(tiny(), out)
    assert not out.exists()
