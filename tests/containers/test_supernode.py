"""What keeps a SuperNode running: it is started again when it fails, and told when the container is stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "supernode.py"

REFUSED = (
    *(
        "",
        ":8443",
        "server",
        "server:",
        "server:http",
        "server:0",
        "server:65536",
        "server:٣",
        "https://server:8443",
    ),
    *("ser ver:8443", "server..org:8443", "-server:8443", "[::1:8443", "[server]:8443", f"{'a' * 64}:8443"),
)
ALLOWED = (
    "server:1",
    "hospital.example.org:65535",
    "hospital.example.org.:8443",
    "192.0.2.1:8443",
    "[2001:db8::1]:8443",
)


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


@pytest.mark.parametrize(
    "options", [["--superlink", ""], ["--superlink="], ["--root-certificates", "x", "--superlink"]]
)
@pytest.mark.parametrize("check", [[], ["--check"]], ids=["run", "check"])
def test_a_server_without_an_address_is_said_once_and_nothing_is_started(
    tmp_path: Path, check: list[str], options: list[str]
) -> None:
    done = run_once(tmp_path, *check, *options)
    assert done.returncode == 2
    assert done.stdout == ""  # the stand-in has not been run
    assert done.stderr == (
        "SuperNode: the server's address '' (FEDUNLEARN_SERVER) has no host; it must be HOST:PORT\n"
    )


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_cannot_be_one_is_refused_in_one_line(tmp_path: Path, address: str) -> None:
    done = run_once(tmp_path, "--check", "--superlink", address)
    assert (done.returncode, done.stdout) == (2, "")
    (said,) = done.stderr.splitlines()
    assert repr(address) in said and "FEDUNLEARN_SERVER" in said and "Traceback" not in said


@pytest.mark.parametrize("address", ALLOWED)
def test_an_address_that_can_be_one_is_tried(tmp_path: Path, address: str) -> None:
    done = run_once(tmp_path, "--check", "--superlink", address)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_flowers_own_default_is_no_fault(tmp_path: Path) -> None:
    assert run_once(tmp_path, "--check").returncode == 0


def run_once(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the script to its end, with a program in the place of Flower's that would say that it was run."""
    stand_in = folder / "flower-supernode"
    stand_in.write_text("#!/bin/sh\necho started\n")
    stand_in.chmod(0o755)
    return subprocess.run(
        [sys.executable, "-IS", str(SCRIPT), *options],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "SUPERNODE_PAUSE": "600"},
        capture_output=True,
        text=True,
        timeout=60,
    )
