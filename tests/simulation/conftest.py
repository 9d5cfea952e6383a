"""Two scripted runs that many tests look at."""

import pytest

from fedunlearn.simulation.runner import CACHE_VARIABLE
from tests.simulation.scripted import TARGETS, TARGETS_SCRIPT, TIMELINE, TIMELINE_SCRIPT, scripted


@pytest.fixture(scope="session")
def targets_run(tmp_path_factory):
    """The run directory of ``scripted.TARGETS``."""
    return scripted(TARGETS, TARGETS_SCRIPT, tmp_path_factory.mktemp("targets"))


@pytest.fixture(scope="session")
def timeline_run(tmp_path_factory):
    """The run directory of ``scripted.TIMELINE``."""
    return scripted(TIMELINE, TIMELINE_SCRIPT, tmp_path_factory.mktemp("timeline"))


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch):
    """Whoever runs the tests may have a cache for their own runs."""
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
