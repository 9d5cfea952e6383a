"""Commands that are watched while they run, and gone with everything they started when they are over."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import fedunlearn
from benchmarks.memory import PeakMemory
from benchmarks.process_tree import ProcessTree
from fedunlearn.errors import RunError

Command = Sequence[str]
TIMEOUT = 3600.0
"""Seconds after which a command is given up."""
LOOK_EVERY = 0.002


@dataclass(frozen=True)
class Launched:
    """A command at work.

    Attributes
    ----------
    began : float
        ``time.monotonic()`` at its launch.
    """

    process: subprocess.Popen[str]
    memory: PeakMemory
    began: float
    log: Path

    def output(self) -> str:
        """Wait for its end and return what it wrote to its standard output; a RunError says why it failed."""
        try:
            output, _ = self.process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            raise RunError(f"took more than {TIMEOUT:g} s") from None
        if self.process.returncode:
            raise RunError(self._last_words())
        return output

    def wait_until(self, condition: Callable[[], bool]) -> float:
        """Return the seconds from its launch until the condition holds; a RunError if it ends before."""
        while not condition():
            if self.process.poll() is not None and not condition():
                raise RunError(self._last_words())
            if time.monotonic() - self.began > TIMEOUT:
                raise RunError(f"took more than {TIMEOUT:g} s")
            time.sleep(LOOK_EVERY)
        return time.monotonic() - self.began

    def _last_words(self) -> str:
        lines = [
            line
            for line in self.log.read_text(errors="replace", encoding="utf-8").splitlines()
            if line.strip()
        ]
        return lines[-1] if lines else f"ended with exit code {self.process.returncode} and without a word"


@contextmanager
def launched(command: Command, folder: Path) -> Iterator[Launched]:
    """Launch a command, and stop whatever still lives of it on the way out."""
    tree = ProcessTree()
    log = folder / "stderr.txt"
    with ExitStack() as stack:
        memory = stack.enter_context(PeakMemory(tree))
        began = time.monotonic()
        process = stack.enter_context(
            subprocess.Popen(
                command,
                env=environment() | tree.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stack.enter_context(log.open("w", encoding="utf-8")),
                text=True,
            )
        )
        stack.callback(tree.stop)
        yield Launched(process, memory, began, log)


def environment() -> dict[str, str]:
    """Return the environment of a row's process: one thread unless it says otherwise, as stock Flower's has."""
    root = str(Path(fedunlearn.__file__).resolve().parents[1])
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "FLWR_TELEMETRY_ENABLED": "0",
    }
