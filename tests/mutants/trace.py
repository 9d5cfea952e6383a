"""A pytest plugin (``-p tests.mutants.trace``) that notes which lines every test runs, and how long it takes to pass.

Every process of pytest writes ``$FEDUNLEARN_TRACE/<worker>.coverage`` and ``<worker>.json``. What other processes run
that a test starts is not seen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

WATCHED = ("fedunlearn",)
_worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
_folder = Path(os.environ["FEDUNLEARN_TRACE"])
_watch = coverage.Coverage(
    data_file=str(_folder / f"{_worker}.coverage"), source=list(WATCHED), config_file=False
)
_seconds: dict[str, float | None] = {}


def pytest_sessionstart() -> None:
    """Begin to watch, before any test is imported."""
    _watch.start()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run a test under its own name."""
    _watch.switch_context(item.nodeid)
    try:
        return (yield)  # type: ignore[return-value]
    finally:
        _watch.switch_context("")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how long a test took that passed, and None of one that did not."""
    _seconds.setdefault(report.nodeid, None)
    if report.when == "call" and report.passed:
        _seconds[report.nodeid] = report.duration


def pytest_sessionfinish() -> None:
    """Write what was seen."""
    _watch.stop()
    _watch.save()
    (_folder / f"{_worker}.json").write_text(json.dumps(_seconds), encoding="utf-8")
