"""Runs tests on changed programs, each in a process of its own that begins with everything heavy imported."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HEAVY = (
    "torch",
    "torchvision",
    "flwr.app",
    "flwr.serverapp",
    "sklearn.svm",
    "hypothesis",
    "pytest",
    "rich",
    "typer",
)
Outcome = Literal["killed", "survived", "not run"]


@dataclass(frozen=True)
class Bench:
    """A copy of the repository in which files are changed.

    Attributes
    ----------
    root : Path
    """

    root: Path

    @classmethod
    def copied(cls, repository: Path, root: Path) -> Bench:
        """Copy what git knows of a repository."""
        shutil.rmtree(root, ignore_errors=True)
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, check=True)
        for name in filter(None, listed.stdout.decode().split("\0")):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repository / name, root / name)
        return cls(root)

    def present(self, words: Sequence[str]) -> frozenset[str]:
        """Return the names of the tests that pytest finds if it is called with these words."""
        call = [sys.executable, "-m", "pytest", "-n", "0", "--collect-only", "-p", "no:cacheprovider", *words]
        environment = {**os.environ, "PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}
        listed = subprocess.run(
            call,
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=True,
        )
        return frozenset(
            line for line in listed.stdout.splitlines() if line.startswith("tests/") and "::" in line
        )

    def try_out(self, file: str, program: str, tests: Sequence[str], seconds: float) -> tuple[Outcome, str]:
        """Return what becomes of a change, and the end of what pytest said of it."""
        if not tests:
            return "not run", "no test"
        path = self.root / file
        whole = path.read_bytes()
        path.write_text(program, encoding="utf-8")
        said = self.root / "said.txt"
        try:
            code = self._pytest(tests, seconds, said)
        finally:
            path.write_bytes(whole)
        tail = said.read_text(encoding="utf-8", errors="replace")[-400:]
        if code == 0:
            return "survived", ""
        return ("not run" if code == 5 else "killed"), "out of time" if code is None else tail

    def _pytest(self, tests: Sequence[str], seconds: float, said: Path) -> int | None:
        """Run pytest in a child; None: it had to be ended."""
        child = os.fork()
        if child == 0:
            os.setsid()
            code = 70
            try:
                code = self._in_child(tests, said)
            finally:
                os._exit(code)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                _end(child)
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        _end(child)
        os.waitpid(child, 0)
        return None

    def _in_child(self, tests: Sequence[str], said: Path) -> int:
        output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(output, stream)
        resource.setrlimit(resource.RLIMIT_AS, (24 << 30, 24 << 30))
        os.chdir(self.root)
        os.environ.update(PYTHONPATH=str(self.root), PYTHONDONTWRITEBYTECODE="1")
        sys.path.insert(0, str(self.root))
        import pytest

        words = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0", "--tb=line"]
        return int(pytest.main([*words, *tests]))


def _end(group: int) -> None:
    """End what is left of a child and of what it started."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def import_heavy() -> None:
    """Import what takes long and is not ours, so that every child has it."""
    import importlib

    for name in HEAVY:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
