"""Whatever becomes of an experiment file: it is read, or refused by one line that names file and key."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest

from fedunlearn.config import load, loads, to_toml
from fedunlearn.errors import ConfigError
from fedunlearn.sweep.file import load as load_sweep
from tests.config.mutations import mutants
from tests.profiles import THOROUGH

ROOT = Path(__file__).parents[2]
FILES = sorted(ROOT.glob("experiments/**/*.toml"))
SWEEPS = sorted(ROOT.glob("sweeps/*.toml"))
MUTANTS = 2000 if THOROUGH else 100
SECONDS = 5.0
"""For the slowest file, on a machine that is busy with something else; it takes milliseconds."""
MEGABYTES = 300.0


def outcomes(path: Path, folder: Path, number: int) -> dict[str, int]:
    """Read damaged copies of a file; return how many were read, and how many refused."""
    found = {"read": 0, "refused": 0}
    sweep = path in SWEEPS
    place = folder / path.name
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for content in mutants(path.read_text(encoding="utf-8"), seed=len(path.name), number=number):
        place.write_bytes(content)
        began = time.perf_counter()
        try:
            if sweep:
                load_sweep(place, overrides=(), smoke=False)
            else:
                experiment = load(place)
                again = to_toml(experiment)
                assert to_toml(loads(again)) == again
        except ConfigError as error:
            check_line(str(error), place)
            found["refused"] += 1
        else:
            found["read"] += 1
        assert time.perf_counter() - began < SECONDS, content
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < MEGABYTES
    return found


def check_line(line: str, place: Path) -> None:
    assert len(line.splitlines()) == 1 and "\0" not in line and "\x1b" not in line, ascii(line)
    assert len(line) < 1500, line
    # What another file says wrong is said of that file: rows to forget, a sweep's experiment.
    assert (
        place.name in line or line.startswith("samples = ") or "no such file" in line or "TOML file" in line
    ), line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of sweeps beside the experiments that they name."""
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    made = tmp_path / "sweeps"
    made.mkdir()
    return made


@pytest.mark.parametrize("path", [*FILES, *SWEEPS], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_damaged_file_is_read_or_refused_by_one_line(path, folder):
    found = outcomes(path, folder, MUTANTS)
    assert min(found.values()) > MUTANTS // 20, "damages that are all harmless, or all fatal, show little"


def test_there_are_two_thousand_of_them():
    assert len(FILES) > 15 and SWEEPS
    assert MUTANTS * len([*FILES, *SWEEPS]) >= 2000
