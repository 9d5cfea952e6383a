"""The images that the tests of this folder run, built once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.containers.stack import TAG, need_engine, stack


@pytest.fixture(scope="session")
def images() -> Iterator[None]:
    """Build the images, and take their names away afterwards; their layers stay in the build cache."""
    need_engine()
    with stack("build") as project:
        project.compose("build", seconds=3600)
    yield
    names = [f"{name}:{TAG}" for name in ("fedunlearn", "fedunlearn-proxy")]
    subprocess.run(["docker", "image", "rm", *names], capture_output=True)
