"""A compose project that a test has to itself: built, brought up, watched, and taken down with all that it made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEAST = (2, 24, 4)  # of compose: since then, what is extended can be overridden
TAG = "test"  # of the images
REQUIRED = "FEDUNLEARN_CONTAINERS"
"""Environment variable: set to "required", a machine without an engine fails the tests instead of skipping them."""


def missing() -> str | None:
    """Return why containers cannot be tested here, or None."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    asked = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True
    )
    if asked.returncode:
        return "no docker engine answers"
    asked = subprocess.run(["docker", "compose", "version", "--short"], capture_output=True, text=True)
    numbers = asked.stdout.strip().lstrip("v").split("-")[0].split("+")[0].split(".")
    if asked.returncode or tuple(int(number) for number in numbers[:3]) < LEAST:
        return f"docker compose is older than {'.'.join(map(str, LEAST))}, or not there"
    return None


def need_engine() -> None:
    """Skip the test that asks where there is no engine; fail it where there must be one."""
    if reason := missing():
        if os.environ.get(REQUIRED) == "required":
            pytest.fail(reason)
        pytest.skip(reason)


class Stack:
    """One compose project.

    Parameters
    ----------
    name
        Of the project; part of the names of its containers, networks and volumes.
    file
        The compose file, from the repository's root.
    environment
        Variables that the file reads.
    """

    def __init__(self, name: str, file: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self._words = ["docker", "compose", "--project-name", name, "--file", file]
        self._environment = {
            **os.environ,
            "FEDUNLEARN_TAG": TAG,
            # Every service waits for others' health, at each step of the way up.
            "FEDUNLEARN_HEALTH_INTERVAL": "4s",
            # Ports that are free.
            "FEDUNLEARN_FLEET_PORT": "0",
            "FEDUNLEARN_DOOR_PORT": "0",
            **environment,
        }

    def compose(
        self, *words: str, check: bool = True, text: str | None = None, seconds: float = 600.0
    ) -> str:
        """Run ``docker compose`` and return what it printed."""
        done = subprocess.run(
            [*self._words, *words],
            cwd=ROOT,
            env=self._environment,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        if check and done.returncode:
            raise AssertionError(
                f"docker compose {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done.stdout

    def within(self, service: str, *words: str, check: bool = True, text: str | None = None) -> str:
        """Run a command in a service's container and return what it printed."""
        return self.compose("exec", "-T", service, *words, check=check, text=text)

    def python(self, service: str, program: str, *words: str, check: bool = True) -> str:
        """Run a Python program in a service's container and return what it printed."""
        return self.within(service, "python", "-", *words, check=check, text=program)

    def states(self) -> dict[str, str]:
        """Return service → "running healthy", "running starting", "exited 0", and so on."""
        lines = self.compose("ps", "--all", "--format", "json").splitlines()
        found = {}
        for line in lines:
            row = json.loads(line)
            more = row["ExitCode"] if row["State"] == "exited" else row["Health"]
            found[row["Service"]] = f"{row['State']} {more}".strip()
        return found

    def docker(self, *words: str, of: Sequence[str]) -> str:
        """Run ``docker`` itself on services' containers: compose would begin with what they depend on."""
        containers = self.compose("ps", "--all", "--quiet", *of).split()
        command = ["docker", *words, *containers]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def address(self, service: str) -> str:
        """Return the first address of a service's container."""
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
        return self.docker("inspect", "--format", form, of=[service]).split()[0]

    def fail(self, *services: str) -> None:
        """Kill services' containers as a power cut would, then switch them on again."""
        self.docker("kill", of=services)
        self.docker("start", of=services)

    def fetch(self, service: str, path: str, folder: Path) -> Path:
        """Copy a file out of a service's container, running or ended."""
        self.compose("cp", f"{service}:{path}", str(folder))
        return folder / Path(path).name

    def logs(self, *services: str) -> str:
        """Return the last lines of services' logs."""
        return self.compose("logs", "--no-color", "--tail", "40", *services, check=False)


@contextmanager
def stack(name: str, file: str = "docker-compose.yml", **environment: str) -> Iterator[Stack]:
    """Give a project that is gone afterwards, with its networks and volumes; a failure shows its logs."""
    project = Stack(f"fedunlearn-test-{name}-{os.getpid()}", file, environment)
    try:
        yield project
    except BaseException:
        print(project.states(), project.logs(), sep="\n")
        raise
    finally:
        project.compose(
            "--profile", "*", "down", "--volumes", "--timeout", "2", "--remove-orphans", check=False
        )


def wait_for(
    what: str, condition: Callable[[], object], seconds: float, describe: Callable[[], object] = str
) -> None:
    """Wait until a condition holds; say what did not come to pass if it does not within this many seconds."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"{what}: not within {seconds:.0f} s; {describe()}")
        time.sleep(1.0)  # between two looks, not instead of one
