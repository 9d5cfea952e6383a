"""What the script that gates a change says last: what was skipped, so that green is not taken for run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "run"
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
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{program}\n")
    path.chmod(0o755)


def run(checkout: Path) -> subprocess.CompletedProcess[str]:
    path = f"{checkout / 'bin'}:{os.environ['PATH']}"
    words = ["bash", str(checkout / ".ci" / "run")]
    return subprocess.run(words, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60)


def test_everything_is_run_in_turn(checkout: Path) -> None:
    done = run(checkout)
    assert done.returncode == 0
    assert done.stdout.split("\n") == ["make test", "make guard", "containers", "", "nothing was skipped", ""]


def test_what_was_skipped_is_said_last(checkout: Path) -> None:
    skipped = "SKIPPED [2] tests/faults/small_disk.py:12: only root mounts a disk"
    write(checkout / "bin" / "make", f"echo '{skipped}'; echo '5760 passed, 2 skipped in 1500 s'")
    write(checkout / ".ci" / "containers", f"echo '{SKIPPED}'")
    done = run(checkout)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-3:] == [skipped, skipped, SKIPPED]  # `make` is run twice


@pytest.mark.parametrize("which", ["bin/make", ".ci/containers"])
def test_a_failure_is_a_failure_and_ends_it(checkout: Path, which: str) -> None:
    write(checkout / which, "echo broken; exit 3")
    done = run(checkout)
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1] == "broken"
