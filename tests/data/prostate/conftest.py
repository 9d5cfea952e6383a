"""Six small sites, and a cache of its own for every test."""

import shutil
from pathlib import Path

import pytest

from tests.data.prostate.loading import CASES
from tests.data.prostate.nifti_sites import write_sites


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(folder))
    return folder / "arrays"


@pytest.fixture(scope="session")
def sites(tmp_path_factory):
    """A set that no test may change."""
    return write_sites(tmp_path_factory.mktemp("sites"), CASES)


@pytest.fixture
def own(tmp_path, sites):
    """A set to change."""
    return Path(shutil.copytree(sites, tmp_path / "own"))
