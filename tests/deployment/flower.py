"""Flower's own programs on loopback, in a closed environment, and the end of everything that they start."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx

from benchmarks.process_tree import Process, ProcessTree

T = TypeVar("T")
REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 500.0
"""Seconds after which something that was waited for has failed; on an idle machine nothing takes a tenth of it."""


def programs() -> str:
    """Return where Flower's programs are looked for: beside this Python first."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def wait_for(what: str, found: Callable[[], T | None], *, patience: float = PATIENCE) -> T:
    """Return what is found, as soon as it is; fail after ``patience`` seconds, naming what was waited for."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if (value := found()) is not None:
            return value
        time.sleep(0.1)
    raise AssertionError(f"waited {patience:g} s in vain for {what}")


def run_config(**config: object) -> str:
    """Return what ``--run-config`` is given; ``_`` stands for ``-``."""
    return " ".join(f'{key.replace("_", "-")}="{value}"' for key, value in config.items())


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Flower:
    """A folder, an environment and the processes that were started in them; to be used in a ``with`` statement.

    Apps find nothing of this repository but what is in the bundle: nothing of it is on their path.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        # Ray's sockets are in there, and a socket's path is 107 bytes at most.
        self._short = tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True)
        self.tree = ProcessTree()
        theirs = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("FLWR_", "RAY_", "PYTHON", "PYTEST", "COV_"))
            and not name.lower().endswith("_proxy")
        }
        self.environment = theirs | {
            "FLWR_HOME": str(self.home),
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port()),
            "FLWR_LOCAL_CONTROL_API_PORT": str(free_port()),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "RAY_TMPDIR": self._short.name,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # 127.0.0.1 instead of a public address
            "XDG_DATA_HOME": str(folder / "share"),
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            "PATH": programs(),
        }
        self.environment |= self.tree.environment

    def __enter__(self) -> Flower:
        return self

    def __exit__(self, *exception: object) -> None:
        self.tree.stop()
        self._short.cleanup()

    def start(self, name: str, *arguments: str | Path, log: str) -> subprocess.Popen[bytes]:
        """Start one of Flower's programs; its output goes to ``<log>.log``."""
        return self.run([self.program(name), *map(str, arguments)], log=log)

    def run(self, words: list[str], *, log: str) -> subprocess.Popen[bytes]:
        """Start any command in this environment; its output goes to ``<log>.log``."""
        return self._start(words, self.environment, log)

    def start_ours(self, *arguments: str | Path, log: str) -> subprocess.Popen[bytes]:
        """Start ``fedunlearn``, of this repository."""
        words = [sys.executable, "-m", "fedunlearn.cli", *map(str, arguments)]
        return self._start(words, self.environment | {"PYTHONPATH": str(REPOSITORY)}, log)

    def _start(self, words: list[str], environment: dict[str, str], log: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{log}.log").open("ab") as file:
            return subprocess.Popen(
                words,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def log(self, name: str) -> str:
        """Return what a program has said, without colours."""
        path = self.folder / f"{name}.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        return re.sub(r"\x1b\[\d*m", "", text)

    def program(self, name: str) -> str:
        """Return the path of a program of this environment."""
        found = shutil.which(name, path=self.environment["PATH"])
        assert found is not None, f"{name} is not installed"
        return found

    def call(self, *arguments: str | Path, timeout: float = PATIENCE) -> str:
        """Run ``flwr`` to its end and return what it printed; fail with that if it failed."""
        done = subprocess.run(
            [self.program("flwr"), *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, f"flwr {' '.join(map(str, arguments))}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *arguments: str | Path) -> dict[str, Any]:
        """Run a ``flwr`` command with ``--format json`` and return what it answered."""
        text = self.call(*arguments, "--format", "json")
        answer: dict[str, Any] = json.loads(text[text.index("{") :])
        return answer

    def processes(self, name: str) -> list[Process]:
        """Return the living processes that run a program, such as ``flwr-serverapp``."""
        return [p for p in self.tree.find() if _runs(p.pid, name)]


def _runs(pid: int, name: str) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(Path(word.decode(errors="replace")).name == name for word in words[:3])


def healthy(url: str, certificate: Path | None) -> bool:
    """Return whether a server answers; only one whose certificate the given authority signed."""
    context = ssl.create_default_context(cafile=str(certificate)) if certificate else False
    try:
        return httpx.get(f"{url}/health", verify=context, timeout=2.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False
