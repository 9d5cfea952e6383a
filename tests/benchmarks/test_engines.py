"""The command: what it writes, what it refuses, and what Ctrl-C leaves."""

import json

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import blocks, docs, engines, guard
from benchmarks.blocks import Block
from benchmarks.cases import CASES
from benchmarks.results import Results
from tests.benchmarks.tiny import NOOP, TINY


@pytest.fixture
def run(monkeypatch, tmp_path):
    for case in (TINY, NOOP):
        monkeypatch.setitem(CASES, case.name, case)
    page = tmp_path / "performance.md"
    page.write_text(f"{docs.BEGIN}\n{docs.END}\n")
    monkeypatch.setattr(engines.docs.write, "__defaults__", (page,))
    app = typer.Typer()
    app.command()(engines.main)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_tables_json_and_page(run, tmp_path):
    file = tmp_path / "engines.json"
    result = run(
        *("--case", "tiny", "--case", "noop-tiny", "--row", "local", "--blocks", "0"),
        *("--json", str(file), "--write-docs"),
    )
    assert result.exit_code == 0, result.output
    assert "mlp × 3 × 40" in result.output
    content = json.loads(file.read_text())
    assert content["finished"] == [[1, "tiny"], [1, "noop-tiny"]]
    assert [(r["case"], r["row"]) for r in content["results"]] == [
        ("tiny", "bare"),
        ("tiny", "local"),
        ("noop-tiny", "bare"),
        ("noop-tiny", "local"),
    ]
    assert all(goal["met"] is None for goal in content["goals"])
    page = (tmp_path / "performance.md").read_text()
    assert "| mlp × 3 × 40 | bare loop |" in page
    assert "| local, 1 × 1 |" in page


def test_interrupted_and_resumed(run, monkeypatch, tmp_path):
    file = tmp_path / "engines.json"
    arguments = ("--case", "tiny", "--case", "noop-tiny", "--row", "local", "--json", str(file))
    asked = []

    def run_block(name, case, *arguments):
        asked.append((case.name, name))
        if asked[-1] == ("noop-tiny", "local"):
            raise KeyboardInterrupt
        return Block([1.0], 2.0, 3_000_000)

    monkeypatch.setattr(blocks, "run_block", run_block)
    result = run(*arguments)
    assert result.exit_code == 1
    assert "interrupted" in result.output
    left = Results.read(file)
    assert left.finished == [(1, "tiny")]
    assert left.get("noop-tiny", 1, "local").turns, "what was measured of the case is there"
    assert left.get("noop-tiny", 1, "bare").blocks == [[1.0]]
    assert not left.complete
    monkeypatch.setattr(blocks, "run_block", lambda name, *arguments: Block([1.0], 2.0, 3_000_000))
    assert run(*arguments, "--resume").exit_code == 0
    resumed = Results.read(file)
    assert resumed.complete
    assert resumed.get("tiny", 1, "local") == left.get("tiny", 1, "local")
    assert resumed.get("noop-tiny", 1, "local").blocks == [[1.0], [1.0]]


@pytest.mark.parametrize(
    ("option", "value"),
    [("--case", "lenet"), ("--row", "horse"), ("--external", "horse"), ("--external", "ray=x")],
)
def test_what_there_is_not_is_refused_with_what_there_is(run, option, value):
    result = run(option, value)
    assert result.exit_code == 2
    assert value in result.output


def test_other_work_is_a_failure_of_its_case_and_of_the_command(run, monkeypatch, tmp_path):
    monkeypatch.setattr("benchmarks.bare.derive_seed", lambda *address: 0)
    file = tmp_path / "engines.json"
    result = run(
        "--case", "tiny", "--case", "noop-tiny", "--row", "local", "--blocks", "0", "--json", str(file)
    )
    assert result.exit_code == 1
    assert "failed: tiny: " in result.output
    assert "no ratio is reported" in result.output
    assert Results.read(file).sections == [(1, "noop-tiny")]


def test_the_guard_is_the_exit_code(run, monkeypatch):
    monkeypatch.setattr(guard, "check", lambda record, report: [report("tiny, local: slow")])
    result = run("--guard")
    assert (result.exit_code, result.output) == (1, "tiny, local: slow\n")
    monkeypatch.setattr(guard, "check", lambda record, report: [])
    assert run("--guard").exit_code == 0
