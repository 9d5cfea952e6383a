"""Killed at any instant, a run resumes to the same weights, scorecard and ledger, bit for bit."""

import multiprocessing
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.killed_run import OF_KEPT_ROUNDS, POINTS, run_and_die
from tests.e2e.tiny import KEPT, TIMELINE, TINY, everything, run, tiny

PROCESSES = multiprocessing.get_context("forkserver")
CACHED = ("before a branch is cached", "while a cached branch is loaded")


@pytest.fixture(scope="module", autouse=True)
def _preload() -> Iterator[None]:
    # Children fork from a server that has imported everything and run nothing: no seconds of imports each.
    PROCESSES.set_forkserver_preload(["tests.e2e.killed_run"])
    yield


@pytest.fixture(scope="module", params=[False, True], ids=["targets", "timeline"])
def uninterrupted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    text = TIMELINE if request.param else TINY
    folder = run(tiny(text=text), tmp_path_factory.mktemp("uninterrupted"))
    return text, everything(folder)


@pytest.fixture(scope="module")
def uninterrupted_of_kept_rounds(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = run(tiny(text=KEPT), tmp_path_factory.mktemp("uninterrupted"))
    return everything(folder), _histories(folder)


def _histories(folder: Path) -> dict[Path, bytes]:
    """Return every file of what is kept of earlier rounds."""
    return {path.relative_to(folder): path.read_bytes() for path in (folder / "history").rglob("*.*")}


def _die(point: str, out: Path, text: str, overrides: tuple[str, ...], after: float | None = None) -> int:
    process = PROCESSES.Process(
        target=run_and_die, args=(point, str(out)), kwargs={"text": text, "overrides": overrides}
    )
    process.start()
    if after is not None:
        process.join(after)
        process.kill()
    process.join(120)
    assert process.exitcode is not None, "the run neither died nor ended"
    return process.exitcode


@pytest.mark.capability("kill")
@pytest.mark.quick(point=1)
@pytest.mark.parametrize("point", POINTS)
def test_a_run_killed_there_resumes_to_the_same(point: str, uninterrupted: Any, tmp_path: Path) -> None:
    text, expected = uninterrupted
    overrides = ("cache=true",) if point in CACHED else ()
    assert _die(point, tmp_path, text, overrides) == -signal.SIGKILL, "the instant was never reached"
    folder = run(tiny(*overrides, text=text), tmp_path, resume=True)
    assert everything(folder) == expected


@pytest.mark.capability("kill")
@pytest.mark.quick(point=1)
@pytest.mark.parametrize("point", OF_KEPT_ROUNDS)
def test_methods_that_forget_by_kept_rounds_resume_to_the_same(
    point: str, uninterrupted_of_kept_rounds: Any, tmp_path: Path
) -> None:
    expected, kept = uninterrupted_of_kept_rounds
    assert _die(point, tmp_path, KEPT, ()) == -signal.SIGKILL, "the instant was never reached"
    folder = run(tiny(text=KEPT), tmp_path, resume=True)
    assert everything(folder) == expected
    assert kept and _histories(folder) == kept


@pytest.mark.slow
def test_killed_again_and_again_at_random_it_still_resumes_to_the_same(
    uninterrupted: Any, tmp_path: Path
) -> None:
    text, expected = uninterrupted
    began = time.monotonic()
    _die("", tmp_path / "measure", text, ())
    whole = time.monotonic() - began
    draw = random.Random(0)
    kills = sum(
        _die("", tmp_path / "run", text, (), after=draw.uniform(0.1, 0.6) * whole) == -signal.SIGKILL
        for _ in range(6)
    )
    folder = run(tiny(text=text), tmp_path / "run", resume=True)
    assert everything(folder) == expected
    assert kills > 0, "every attempt ended before it was killed"
