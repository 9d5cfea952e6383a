"""Components in the current directory: found by who is given an experiment, and by nobody else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedunlearn import plugins
from fedunlearn.cli.current_folder import make_importable
from fedunlearn.cli.main import app
from fedunlearn.errors import UserError
from tests.e2e.tiny import TINY

PLANTED = """
from pathlib import Path

from fedunlearn.strategies.base import UnlearningStrategy

Path("imported").touch()


class Planted(UnlearningStrategy):
    pass
"""
NAMING_IT = TINY.replace('name = "puf"', 'name = "planted:Planted"')
LIVE = NAMING_IT.replace("targets = [[1]]\n", "").replace('[[method]]\nname = "natural"\n', "[requests]\n")
LIVE = LIVE.replace("[floor]\nretrainings = 1\n", "").replace(
    "[recover]\n", '[recover]\nuntil = "max-rounds"\n'
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory: a strategy, an experiment and a run that both name it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place and place != str(tmp_path)])
    monkeypatch.setattr(plugins, "LOADED", {})
    (tmp_path / "planted.py").write_text(PLANTED, encoding="utf-8")
    (tmp_path / "x.toml").write_text(NAMING_IT, encoding="utf-8")
    (tmp_path / "run").mkdir()
    yield tmp_path
    sys.modules.pop("planted", None)


def said(*arguments: str) -> str:
    """Run a command; return what it says, or what it is refused with."""
    result = CliRunner().invoke(app, arguments)
    return str(result.exception) if isinstance(result.exception, UserError) else result.output


@pytest.mark.parametrize(
    "command", [["check", "x.toml"], ["run", "x.toml"], ["data", "export", "x.toml", "--out", "data"]]
)
def test_who_is_given_an_experiment_looks_there(here: Path, command: list[str]) -> None:
    # One key is wrong, so that nothing runs: it is refused once the strategy's settings are known.
    assert said(*command, "--set", "method[1].rate=1").startswith("method[1].rate = 1 (--set ")
    assert (here / "imported").exists()


def test_so_does_a_sweep(here: Path) -> None:
    sweep = 'name = "s"\nexperiment = "x.toml"\nseeds = [2]\n[space.Planted]\nrate = [1, 2]\n'
    (here / "s.toml").write_text(sweep, encoding="utf-8")
    assert "space.Planted.rate" in said("sweep", "s.toml", "--check")
    assert (here / "imported").exists()


@pytest.mark.parametrize("text", [NAMING_IT, LIVE], ids=["simulated", "live"])
@pytest.mark.parametrize(
    "command", [["report"], ["compare"], ["requests"], ["verify"], ["forget", "--client", "0"]]
)
def test_who_is_given_a_run_does_not(here: Path, text: str, command: list[str]) -> None:
    (here / "run" / "experiment.toml").write_text(text, encoding="utf-8")
    assert said(*command, "run")
    assert not (here / "imported").exists()


def test_it_comes_last_and_once(here: Path) -> None:
    before = list(sys.path)
    make_importable()
    make_importable()
    assert sys.path == [*before, str(here)]


def test_a_folder_that_has_been_deleted_is_none(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "gone").mkdir()
    monkeypatch.chdir(here / "gone")
    (here / "gone").rmdir()
    before = list(sys.path)
    make_importable()
    assert sys.path == before
    monkeypatch.chdir(here)


def test_python_may_be_told_to_keep_out_of_it(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "from fedunlearn.cli.current_folder import make_importable\n"
        "before = list(sys.path); make_importable(); assert sys.path == before, sys.path\n"
    )
    found = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8"
    )
    assert found.returncode == 0, found.stderr
