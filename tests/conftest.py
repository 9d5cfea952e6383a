"""For all tests: one thread each, no deadlines on machines that are busy with something else."""

import os
import sys
import tempfile
from collections import defaultdict

import pytest
import torch

from tests import profiles as profiles  # of hypothesis, chosen before any test asks for its share

torch.set_num_threads(1)

# Prepared volumes are kept in the user's cache folder; tests, and the processes they start, have one of their own.
_caches = tempfile.TemporaryDirectory(prefix="fedunlearn-tests-")
os.environ["XDG_CACHE_HOME"] = _caches.name

# What a user has set for runs of their own would make tests pass or fail: a cache that is there already above all.
USERS = (
    "FEDUNLEARN_CACHE",
    "FEDUNLEARN_SIGNING_KEY",
    "FEDUNLEARN_TOKEN",
    "COLUMNS",
    "LINES",
    "NO_COLOR",
    "FORCE_COLOR",
)
for _name in USERS:
    os.environ.pop(_name, None)


@pytest.fixture(scope="session")
def federation(tmp_path_factory):
    """A SuperLink and SuperNodes: half a minute to start, so that all who need them share them."""
    from tests.deployment.federation import opened

    with opened(tmp_path_factory.mktemp("federation")) as running:
        yield running


def pytest_collection_modifyitems(items):
    """Mark the tests of modules that start programs: they need a machine that lets them, and take its processors.

    And those cases as slow that ``quick`` leaves to ``make rest``.
    """
    starting = {module: starts_programs(module) for module in {item.module for item in items}}
    values = defaultdict(list)
    for item in items:
        if starting[item.module]:
            item.add_marker("processes")
        for mark in item.iter_markers("quick"):
            for argument, first in mark.kwargs.items():
                of_function = values[item.parent.nodeid, item.originalname, argument]
                if place_of(item.callspec.params[argument], of_function) >= first:
                    item.add_marker("slow")


def place_of(value, values):
    """Return where a value, this very object, stands in a list; it is appended if it is not there."""
    found = next((place for place, other in enumerate(values) if other is value), len(values))
    if found == len(values):
        values.append(value)
    return found


def starts_programs(module):
    """Return whether a module starts programs, itself or by a helper of the tests that it imports."""
    seen, new = set(), {module}
    while new:
        found = new.pop()
        seen.add(found)
        if any(hasattr(found, name) for name in ("subprocess", "multiprocessing", "Popen")):
            return True
        homes = {getattr(value, "__module__", "") for value in vars(found).values()}
        new |= {
            sys.modules[home] for home in homes if home.startswith("tests.") and home in sys.modules
        } - seen
    return False
