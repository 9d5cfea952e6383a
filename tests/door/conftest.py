"""A run directory with a roster, and a door with room for everything."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.door.served import Caller, Place, place, served


@pytest.fixture
def at(tmp_path: Path) -> Place:
    return place(tmp_path)


@pytest.fixture
def knock(at: Place) -> Iterator[Caller]:
    with served(at) as caller:
        yield caller
