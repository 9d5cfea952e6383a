"""Rows in processes of their own: what they must say, and what becomes of one that fails."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import blocks, child, rows
from benchmarks.blocks import Blocks, run_block, take_blocks
from benchmarks.cases import CASES
from benchmarks.measure import measure
from fedunlearn.errors import RunError
from tests.benchmarks.tiny import NOOP, TINY

ENGINE = """
import json, sys, time
import numpy as np
name, case, *options = sys.argv[1:]
given = dict(zip(options[::2], options[1::2]))
np.save(given["--weights"], np.full(3, float(given["--threads"]), dtype=np.float32))
print("a word of its own")
print(json.dumps({"seconds": [9.0] + [0.5] * (int(given["--rounds"]) - 1), "first_round": time.monotonic()}))
"""


@pytest.fixture
def engine(tmp_path):
    """Return the command of somebody else's engine."""
    path = tmp_path / "engine.py"
    path.write_text(ENGINE)
    return [sys.executable, str(path)]


def test_a_row_of_somebody_elses_engine(engine, tmp_path):
    block = run_block("theirs", TINY, tmp_path, threads=2, external=engine)
    assert block.seconds == [0.5, 0.5], "the first round belongs to the start"
    assert 0 < block.first_round < 60
    assert block.peak_memory is not None
    assert block.weights.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import sys; sys.exit('no GPU here')", "no GPU here"),
        ("raise SystemExit(3)", "exit code 3"),
        ("print('no JSON')", "gave no result"),
        ("pass", "gave no result"),
    ],
)
def test_a_row_that_fails_says_why(program, why, tmp_path):
    with pytest.raises(RunError, match=why):
        run_block("theirs", TINY, tmp_path, external=[sys.executable, "-c", program])


def test_rows_alternate_and_one_that_fails_is_left_out_from_then_on(monkeypatch):
    asked = []

    def run(name, *arguments):
        asked.append(name)
        if name == "b":
            raise RunError("broken")
        return blocks.Block([1.0], 1.0, None)

    monkeypatch.setattr(blocks, "run_block", run)
    found = take_blocks("abc", TINY, blocks=2)
    assert asked == ["a", "b", "c", "a", "c"]
    assert found.missing == {"b": "broken"}
    assert {name: len(of) for name, of in found.of.items()} == {"a": 2, "c": 2}


def test_final_weights_are_compared():
    found = Blocks(
        {
            name: [blocks.Block([1.0], 1.0, None, weights=torch.tensor(weights))]
            for name, weights in {"a": [1.0, 2.0], "b": [1.0, 2.5], "c": [1.0]}.items()
        }
    )
    assert found.difference("b", "a") == 0.5
    assert found.difference("a", "nobody") is None
    with pytest.raises(RunError, match="c has 1 weights and a 2"):
        found.difference("c", "a")


@pytest.mark.parametrize("case", [TINY, NOOP], ids=lambda case: case.name)
def test_a_row_alone_ends_where_the_bare_loop_does(case, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(CASES, case.name, case)
    monkeypatch.setattr(child, "EXTRA_ROUNDS", 5)
    weights = {}
    for name in ("bare", "local"):
        path = tmp_path / f"{name}.npy"
        child.main(name, case.name, rounds=3, weights=path, threads=1)
        answer = json.loads(capsys.readouterr().out)
        assert len(answer["seconds"]) == 5, "rounds so short are followed by more"
        assert answer["serialised"] == 0
        weights[name] = np.load(path)
    assert np.abs(weights["bare"] - weights["local"]).max() <= 1e-6
    if case is TINY:
        start = rows.make("bare", case, tmp_path, 1).vector().numpy()
        assert np.abs(weights["bare"] - start).max() > 1e-3, "somebody trained"


@pytest.mark.slow
def test_a_child_that_cannot_be_says_so_in_one_line(tmp_path):
    with pytest.raises(RunError, match=r"^a no-op is not trained$"):
        run_block("batched", CASES["noop-1MB"], tmp_path)


def test_a_case_becomes_one_record_per_row(engine, monkeypatch):
    real = blocks.run_block
    # Ours run like somebody else's here: starting Python with torch in it takes seconds each.
    monkeypatch.setattr(blocks, "run_block", lambda n, c, f, t, e: real(n, c, f, t, e or engine))
    case = replace(TINY, rounds=2)
    bare, local, theirs = measure(case, ["local"], external={"theirs": engine}, blocks=2)
    assert (bare.row, local.row, theirs.row) == ("bare", "local", "theirs")
    assert len(bare.turns) == len(local.turns) == 2
    assert (theirs.turns, theirs.blocks) == ([], [[0.5, 0.5], [0.5, 0.5]])
    assert len(local.first_round) == len(local.peak_memory) == 2
    assert local.difference <= 1e-6
    assert theirs.difference == 0.0


def test_a_row_that_did_other_work_has_no_seconds(engine, monkeypatch):
    weights = {"bare": [0.0, 0.0], "theirs": [0.0, 0.01], "mine": [0.0, 0.0001]}

    def run(name, *arguments):
        return blocks.Block([1.0], 1.0, None, weights=torch.tensor(weights[name]))

    monkeypatch.setattr(blocks, "run_block", run)
    case = replace(TINY, rounds=0)
    _, theirs, mine = measure(case, [], external={"theirs": engine, "mine": engine}, blocks=1)
    assert theirs.missing == "ended in other weights than bare, by 1.0e-02"
    assert (theirs.seconds, mine.seconds, mine.missing) == ([], [1.0], None)
