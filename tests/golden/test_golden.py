"""What may not change is reported by its name when it does; what may is not."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fedunlearn.evaluation.rows import Row
from fedunlearn.runs.directory import LEDGER, SCORECARD, RunDirectory
from tests.e2e.tiny import run, tiny
from tests.golden import __main__ as command
from tests.golden.reading import APART, BY_MEASURE, CASE, OUTCOMES, UNCOMPARED, Facts, content_hash, read
from tests.golden.recording import COMMAND, Recording, check, differences, elsewhere, expected, fingerprint

PUF, NATURAL = "puf-special-2-0-s1", "natural-0-s1"
BRANCHES = {"original-s1", "retrain-0-s1", "floor-0-s1", PUF, NATURAL}
HERE = fingerprint()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tiny(), tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def facts(finished: Path) -> Facts:
    return read(finished)


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "renamed")


def changed(facts: Facts, folder: Path) -> set[str]:
    """Return the names under which a run differs."""
    return {line.partition(":")[0] for line in differences(facts, read(folder))}


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def rewrite(folder: Path, branch: str, *, meta: dict[str, str] | None = None, bit: int = 0) -> None:
    """Write a branch's last checkpoint again, with another account or with a bit of a weight flipped."""
    opened = RunDirectory(folder)
    last = opened.checkpoints(branch).latest()
    assert last is not None
    vector = (last.vector.view(torch.int32) ^ torch.tensor([bit] + [0] * (len(last.vector) - 1))).int()
    new = replace(last, vector=vector.view(torch.float32), meta={**last.meta, **(meta or {})})
    opened.checkpoints(branch).save(new)
    opened.close()


def test_everything_is_read(facts: Facts) -> None:
    assert facts["weights"].keys() == BRANCHES
    assert len(set(facts["weights"].values())) == len(BRANCHES)
    assert facts["verified"] == {"checkpoints": "good, 5", "trail": "good, 2"}
    assert facts["trail"][f"{PUF} target-0"].startswith("received 3, scheduled 4, unlearning 4")
    assert {"rows", "recovery", "scale", "test_accuracy", "l2_to_retrain"} <= facts["scores"].keys()
    labels = {"original", "retrain", "puf-special-2", "natural"}
    assert facts["figures"].keys() == facts["costs"].keys() == labels


def test_another_run_on_more_workers_is_the_same(facts: Facts, tmp_path: Path) -> None:
    assert differences(facts, read(run(tiny("engine.workers=3"), tmp_path))) == []


def test_names_metadata_words_and_times_are_free(facts: Facts, copied: Path) -> None:
    for branch in BRANCHES:
        rewrite(copied, branch, meta={"remark": "another account of the same weights"})

    def elsewhere_and_later(card: dict[str, Any]) -> None:
        card |= {"run": "renamed", "experiment": "renamed", "schema": 9, "aggregates": []}
        card["rows"].reverse()
        for row in card["rows"]:
            row["cost"] |= {"seconds": 99.0, "cached": True}
            row["forget"] |= {"words": "client 1", "parts": [7]}
            row |= {"reason": "put better", "host": "elsewhere"}

    edit(copied / SCORECARD, elsewhere_and_later)
    edit(copied / "branches.json", lambda records: [r.update(key="another", engine=None) for r in records])
    (copied / "report.html").write_text("another page")
    assert changed(facts, copied) == set()


def test_a_bit_of_a_weight(facts: Facts, copied: Path) -> None:
    rewrite(copied, NATURAL, bit=1)
    assert changed(facts, copied) == {f"weights, {NATURAL}"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda row: row["gap"].update(test_loss=0.123456), {"test_loss"}),
        (lambda row: row["floor"].update(mia_svc=0.123456), {"mia_svc"}),
        (lambda row: row["floors"].update(mia_svc=[0.123456]), {"mia_svc"}),
        (lambda row: row["metrics"].update(test_loss=None), {"test_loss"}),
        (lambda row: row["metrics"].update(invented=1.0), {"invented"}),
        (lambda row: row["metrics"].pop("kl_to_retrain"), {"kl_to_retrain"}),
        (lambda row: row.update(recovery_rounds_authors=9), {"recovery"}),
        (lambda row: row.update(failed=True), {"failures"}),
        (lambda row: row.update(per_class=[50.0, None]), {"per class"}),
        (lambda row: row["scale"].update(group=3.0), {"scale"}),
        (lambda row: row["scale"].update(effective={"1": 3.0}), {"scale"}),
        (lambda row: row.update(seed=2), {"rows"}),
        (lambda row: row["forget"].update(samples=0.5), {"rows"}),
    ],
)
def test_a_score(facts: Facts, copied: Path, change: Callable[[Any], object], named: set[str]) -> None:
    def first_of_puf(card: dict[str, Any]) -> None:
        change(next(row for row in card["rows"] if row["label"] == "puf-special-2"))

    edit(copied / SCORECARD, first_of_puf)
    assert changed(facts, copied) == {f"scores, {name}" for name in named}


def test_a_score_of_the_last_moment_is_shown_in_numbers(facts: Facts, copied: Path) -> None:
    def last_of_puf(card: dict[str, Any]) -> None:
        row = next(row for row in card["rows"] if (row["label"], row["at"]) == ("puf-special-2", "cap"))
        row["metrics"]["test_accuracy"] = 12.25

    edit(copied / SCORECARD, last_of_puf)
    scores, figures = differences(facts, read(copied))
    assert scores.startswith("scores, test_accuracy: recorded ")
    recorded, _, here = figures.partition("; here ")
    assert recorded.startswith("figures, puf-special-2: recorded cap (1): forget ")
    assert "test 12.2500 accuracy" in here and "test 12.2500" not in recorded


@pytest.mark.parametrize("cost", ["client_epochs", "bytes_up", "bytes_down"])
def test_a_cost_is_no_score(facts: Facts, copied: Path, cost: str) -> None:
    edit(copied / SCORECARD, lambda card: card["rows"][0]["cost"].update({cost: 1}))
    assert changed(facts, copied) == {"costs, original"}


def test_a_branch_that_is_missing_and_one_too_many(facts: Facts, copied: Path) -> None:
    for path in (copied / "checkpoints").glob(f"{NATURAL}-*"):
        path.rename(path.with_name(path.name.replace(NATURAL, "natural-1-s1")))
    edit(copied / "branches.json", lambda records: records[-1].update(branch="natural-1-s1"))
    lines = [line for line in differences(facts, read(copied)) if line.startswith("weights")]
    of = facts["weights"][NATURAL]
    assert lines == [
        f"weights, {NATURAL}: gone; recorded was {of}",
        f"weights, natural-1-s1: not recorded; here it is {of}",
    ]


def test_a_branch_without_weights(facts: Facts, copied: Path) -> None:
    for path in (copied / "checkpoints").glob(f"{NATURAL}-*"):
        path.unlink()
    lines = differences(facts, read(copied))
    assert f"weights, {NATURAL}: recorded {facts['weights'][NATURAL]}; here none" in lines


def test_a_bad_verdict(facts: Facts, copied: Path) -> None:
    with sqlite3.connect(copied / LEDGER) as ledger:
        ledger.execute("UPDATE audit SET at = at + 1 WHERE branch = ? AND entry = 2", (PUF,))
    lines = differences(facts, read(copied))
    assert "verified, trail: recorded good, 2; here good, 1" in lines
    (bad,) = (line for line in lines if line.endswith("not recorded; here it is BAD"))
    assert bad.startswith(f"verified, trail of {PUF}: ")


def test_another_way_through_the_states(facts: Facts, copied: Path) -> None:
    with sqlite3.connect(copied / LEDGER) as ledger:
        ledger.execute("UPDATE audit SET round = 5 WHERE branch = ? AND to_state = 'unlearning'", (PUF,))
    assert f"trail, {PUF} target-0" in changed(facts, copied)


@pytest.mark.parametrize(
    "other",
    [
        {
            "weight": torch.tensor([[1.0, 2.0]]),
            "bias": torch.tensor([3], dtype=torch.int64).view(torch.float64),
        },
        {"weight": torch.tensor([1.0, 2.0]), "bias": torch.tensor([3])},
        {"weights": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3])},
        {"weight": torch.tensor([[1.0, -2.0]]), "bias": torch.tensor([3])},
        {"weight": torch.tensor([[1.0, 2.0]])},
    ],
    ids=["type", "shape", "name", "bytes", "one less"],
)
def test_tensors_are_hashed_by_content(other: dict[str, torch.Tensor], tmp_path: Path) -> None:
    tensors = {"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3])}
    save_file(tensors, tmp_path / "renamed", metadata={"written": "later"})
    assert content_hash(load_file(tmp_path / "renamed")) == content_hash(tensors)
    assert content_hash(dict(reversed(tensors.items()))) == content_hash(tensors)
    assert content_hash(other) != content_hash(tensors)


def test_of_every_column_it_is_decided_whether_it_may_change() -> None:
    decided = [*CASE, *(column for columns in OUTCOMES.values() for column in columns), *BY_MEASURE]
    assert sorted([*decided, *APART, *UNCOMPARED]) == sorted(field.name for field in fields(Row))


def test_a_recording_is_read_back_and_agrees(facts: Facts, finished: Path, tmp_path: Path) -> None:
    Recording(HERE, facts).save("smoke/tiny", tmp_path)
    assert Recording.load("smoke/tiny", tmp_path) == Recording(HERE, facts)
    check(finished, "smoke/tiny", tmp_path)


def test_a_run_that_differs_fails_by_name(facts: Facts, copied: Path, tmp_path: Path) -> None:
    Recording(HERE, facts).save("smoke/tiny", tmp_path)
    rewrite(copied, PUF, bit=1)
    with pytest.raises(AssertionError, match=f"smoke/tiny is not as recorded:\nweights, {PUF}: "):
        check(copied, "smoke/tiny", tmp_path)


def test_what_was_never_recorded_fails(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=f"{COMMAND} smoke/tiny"):
        check(finished, "smoke/tiny", tmp_path)


@pytest.mark.parametrize("which", HERE)
def test_on_another_machine_it_is_skipped_and_says_why(which: str, facts: Facts, tmp_path: Path) -> None:
    there = {**HERE, which: "another"}
    Recording(there, facts).save("smoke/tiny", tmp_path)
    with pytest.raises(pytest.skip.Exception, match=f"{which} another.* this is .*{which} .*{COMMAND}"):
        expected("smoke/tiny", tmp_path)
    assert elsewhere(HERE, HERE) == ""


def asked(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["golden", *words])
    return command.main()


def test_record_and_compare(
    finished: Path,
    copied: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ran = []
    monkeypatch.setattr(command, "run", lambda name, folder, *set_: ran.append((name, set_)) or finished)
    monkeypatch.setenv("XDG_CACHE_HOME", "put back afterwards")
    words = ("record", "full/quickstart", "--into", str(tmp_path), "--workers", "3")
    assert asked(monkeypatch, *words) == 0
    assert ran == [("full/quickstart", ("engine.workers=3",))]
    load = Recording.load
    monkeypatch.setattr(Recording, "load", lambda name: load(name, tmp_path))
    capsys.readouterr()
    assert asked(monkeypatch, "compare", str(copied), "full/quickstart") == 0
    assert capsys.readouterr().out == "as recorded\n"
    rewrite(copied, PUF, bit=1)
    assert asked(monkeypatch, "compare", str(copied), "full/quickstart") == 1
    assert capsys.readouterr().out.startswith(f"weights, {PUF}: recorded round 6, ")


def test_a_bad_run_is_never_recorded(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(copied / LEDGER) as ledger:
        ledger.execute("UPDATE audit SET at = at + 1 WHERE branch = ? AND entry = 2", (PUF,))
    monkeypatch.setattr(command, "run", lambda name, folder: copied)
    monkeypatch.setenv("XDG_CACHE_HOME", "put back afterwards")
    assert asked(monkeypatch, "record", "full/quickstart", "--into", str(tmp_path / "none")) == 1
    assert f"trail of {PUF}: " in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


def test_an_unknown_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        asked(monkeypatch, "record", "smoke/nothing")
    assert "smoke/nothing: must be one of smoke/" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Recording, "load", lambda name: Recording(HERE, {}))
    assert asked(monkeypatch, "compare", str(tmp_path / "nowhere"), "full/quickstart") == 1
    assert capsys.readouterr().err.count("\n") == 1
