"""What keeps a SuperNode running: it is started again when it fails, and told when the container is stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "deploy" / "supernode.py"


@contextmanager
def supernode(folder: Path, program: str, *, pause: str) -> Iterator[subprocess.Popen[str]]:
    """Run the script with another program in the place of Flower's."""
    stand_in = folder / "flower-supernode"
    stand_in.write_text(f"#!/bin/sh\n{program}\n")
    stand_in.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "SUPERNODE_PAUSE": pause}
    process = subprocess.Popen(
        [sys.executable, "-IS", str(SCRIPT), "--superlink", "fleet:8443"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_one_that_failed_is_started_again_with_the_same_options(tmp_path: Path) -> None:
    with supernode(tmp_path, 'echo "$@"; exit 3', pause="0.01") as process:
        for _ in range(3):
            assert line(process) == "--superlink fleet:8443"
            assert line(process) == "the SuperNode ended with 3; it is started again in 0.01 s"


def test_stopped_it_lets_the_supernode_say_goodbye(tmp_path: Path) -> None:
    program = "trap 'echo goodbye; kill $!; exit 0' TERM; echo up; sleep 600 & wait"
    with supernode(tmp_path, program, pause="600") as process:
        assert line(process) == "up"
        process.terminate()
        assert line(process) == "goodbye"
        assert process.wait(60) == 0


def test_stopped_while_it_waits_it_ends_at_once(tmp_path: Path) -> None:
    with supernode(tmp_path, "exit 1", pause="600") as process:
        assert line(process).endswith("started again in 600 s")
        process.terminate()
        assert process.wait(60) == 0
