"""The script that gates a change runs every test once, and says last what was skipped: green is not taken for run."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / ".ci" / "run"
MARKED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
MARKERS = [re.split("[:(]", line)[0] for line in MARKED["markers"]]
SKIPPED = "containers: 3 tests skipped: no docker engine answers"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the script, in which everything that it runs is one line."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(SCRIPT, tmp_path / ".ci" / "run")
    write(tmp_path / "bin" / "make", 'echo "make $1"')
    write(tmp_path / ".ci" / "containers", "echo containers")
    return tmp_path


def write(path: Path, program: str) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(f"#!/bin/sh\n{program}\n")
    path.chmod(0o755)


def run(checkout: Path) -> subprocess.CompletedProcess[str]:
    path = f"{checkout / 'bin'}:{os.environ['PATH']}"
    words = ["bash", str(checkout / ".ci" / "run")]
    return subprocess.run(words, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60)


def test_everything_is_run_in_turn(checkout: Path) -> None:
    done = run(checkout)
    assert done.returncode == 0
    assert done.stdout.split("\n") == [
        *("make test", "make guard", "make rest", "containers"),
        *("", "nothing was skipped", ""),
    ]


def test_what_was_skipped_is_said_last(checkout: Path) -> None:
    skipped = "SKIPPED [2] tests/faults/small_disk.py:12: only root mounts a disk"
    write(checkout / "bin" / "make", f"echo '{skipped}'; echo '5760 passed, 2 skipped in 1500 s'")
    write(checkout / ".ci" / "containers", f"echo '{SKIPPED}'")
    done = run(checkout)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-4:] == [skipped] * 3 + [SKIPPED]  # `make` is run three times


@pytest.mark.parametrize("which", ["bin/make", ".ci/containers"])
def test_a_failure_is_a_failure_and_ends_it(checkout: Path, which: str) -> None:
    write(checkout / which, "echo broken; exit 3")
    done = run(checkout)
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1] == "broken"


@pytest.fixture
def asked(checkout: Path) -> list[list[str]]:
    """What pytest is asked for if the script is run with the Makefile, and an engine for containers, but no tools."""
    shutil.copy(ROOT / "Makefile", checkout)
    shutil.copy(ROOT / ".ci" / "containers", checkout / ".ci")
    (checkout / "bin" / "make").unlink()
    write(checkout / "bin" / "docker", "exit 0")
    noted = checkout / "noted"
    write(
        checkout / ".venv" / "bin" / "python", f'printf "%s\\037" "$@" >> {noted}; echo >> {noted}; echo a::b'
    )
    for tool in ("ruff", "lint-imports", "mypy"):
        write(checkout / ".venv" / "bin" / tool, "exit 0")
    for name in ("pyproject.toml", "constraints.txt", ".venv/.installed"):
        (checkout / name).touch()
    done = run(checkout)
    assert done.returncode == 0, done.stderr
    calls = [line.split("\x1f")[:-1] for line in noted.read_text(encoding="utf-8").splitlines()]
    return [words[2:] for words in calls if words[:2] == ["-m", "pytest"] and "--collect-only" not in words]


def selects(words: list[str], place: str, marks: dict[str, bool]) -> bool:
    """Return whether pytest, asked with these words, runs a test that lies there and is marked so."""
    assert not {"-k", "--deselect", "--ignore", "--lf"} & {word.partition("=")[0] for word in words}
    places = [word for word in words if word.startswith("tests")] or MARKED["testpaths"]
    lies = any(f"{place}/".startswith(f"{each}/") for each in places)
    return lies and eval(words[words.index("-m") + 1], {}, marks)


def test_every_test_is_selected_by_exactly_one_step(asked: list[list[str]]) -> None:
    assert len(asked) == 3 and "-m" not in MARKED["addopts"].split()
    for marked in itertools.product([False, True], repeat=len(MARKERS)):
        marks = dict(zip(MARKERS, marked, strict=True))
        place = "tests/containers" if marks["containers"] else "tests"
        assert sum(selects(words, place, marks) for words in asked) == 1, f"{place}, marked {marks}: {asked}"


def test_tests_that_need_an_engine_for_containers_lie_where_the_script_looks_for_them() -> None:
    mark = "mark." + "containers"
    found = [path for path in ROOT.glob("tests/**/*.py") if mark in path.read_text(encoding="utf-8")]
    assert found and {path.parent.name for path in found} == {"containers"}
