"""Running shipped experiments as a user does, each under the name of its recording."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fedunlearn.config import load

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"
FULL = ("full/quickstart", "full/timeline")
"""Those that are run as they stand; of all others ``--smoke`` is enough."""


def shipped() -> list[Path]:
    """Return the shipped experiments that end with a scorecard."""
    # A live federation has nothing retrained to compare with, so no scorecard: tests/containers runs that one.
    return sorted(path for path in EXPERIMENTS.rglob("*.toml") if not load(path).live)


def smoke_name(path: Path) -> str:
    """Return the name of an experiment's smoke, such as ``"smoke/puf/prostate-unet"``."""
    return f"smoke/{path.relative_to(EXPERIMENTS).with_suffix('').as_posix()}"


def names() -> list[str]:
    """Return the names of all runs that are recorded."""
    return [*map(smoke_name, shipped()), *FULL]


def run(name: str, folder: Path, *overrides: str, timeout: float | None = None) -> Path:
    """Run what a name stands for and return its run directory.

    Parameters
    ----------
    folder
        An empty one; runs and cache are made in it.
    overrides
        Assignments as after ``--set``.
    timeout
        Seconds that it may take; None: any number.
    """
    kind, _, experiment = name.partition("/")
    words = ["run", str(EXPERIMENTS / f"{experiment}.toml"), "--out", "runs"]
    words += ["--smoke"] if kind == "smoke" else []
    words += [word for override in overrides for word in ("--set", override)]
    result = subprocess.run(
        [sys.executable, "-m", "fedunlearn.cli", *words],
        cwd=folder,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "FEDUNLEARN_CACHE": str(folder / "cache"),
        },
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (found,) = (each for each in (folder / "runs").iterdir() if each.is_dir() and each.name != ".cache")
    return found
