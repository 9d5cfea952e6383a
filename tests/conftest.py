"""For all tests: one thread each, no deadlines on machines that are busy with something else."""

import os
import tempfile

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("fedunlearn", deadline=None, print_blob=True)
settings.load_profile("fedunlearn")

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
