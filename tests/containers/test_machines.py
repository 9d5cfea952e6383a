"""Server and client as projects of their own, that know of each other what two machines would."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.containers.stack import stack, wait_for


@pytest.mark.slow
@pytest.mark.containers
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("images")
def test_a_client_joins_from_elsewhere(tmp_path: Path) -> None:
    with address_of_this_machine() as here:
        join_from_elsewhere(tmp_path, here)


@contextmanager
def address_of_this_machine() -> Iterator[str]:
    """Make a network, whose gateway is an address of this machine that containers of any network reach.

    The engine's own bridge has none to show before the engine's first restart.
    """
    name = f"fedunlearn-test-machines-{os.getpid()}"
    docker("network", "create", name)
    try:
        here = docker("network", "inspect", name, "--format", "{{(index .IPAM.Config 0).Gateway}}")
        assert here, docker("network", "inspect", name)
        yield here
    finally:
        docker("network", "rm", name)


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout.strip()


def join_from_elsewhere(tmp_path: Path, here: str) -> None:
    keys, data = tmp_path / "keys", tmp_path / "data"
    for folder in (keys, data):
        folder.mkdir()

    server_side = {
        "FEDUNLEARN_NAMES": here,
        "FEDUNLEARN_LISTEN": here,
        "FEDUNLEARN_CLIENT_KEYS": str(keys),
        "FEDUNLEARN_SERVER_DATA": str(data),
    }
    with stack("server", "deploy/compose.server.yml", **server_side) as server:
        server.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "600", "proxy", "door")
        authority = server.fetch("server-keys", "/keys/trust/ca.crt", tmp_path)
        port = server.compose("port", "proxy", "8443").strip().rpartition(":")[2]
        client_side = {
            "FEDUNLEARN_CLIENT": "4",
            "FEDUNLEARN_SERVER": f"{here}:{port}",
            "FEDUNLEARN_CA": str(authority),
            "FEDUNLEARN_DATA": str(data),
        }
        nowhere = {**client_side, "FEDUNLEARN_SERVER": f":{port}"}  # as when a variable in it was empty
        with stack("lost", "deploy/compose.client.yml", **nowhere) as client:
            client.compose("up", "--detach", "--no-build", check=False)
            assert f"the server's address ':{port}' (FEDUNLEARN_SERVER) has no host" in client.logs(
                "settings"
            )
            assert client.states()["supernode"] == "created"  # and never started

        with stack("client", "deploy/compose.client.yml", **client_side) as client:
            said = client.compose("run", "--rm", "keys")
            (public,) = [line for line in said.splitlines() if line.startswith("ecdsa-")]

            # Unregistered, it is turned away.
            client.compose("up", "--detach", "--no-build", "supernode")
            wait_for(
                "a refusal", lambda: "Failed to initialize the connection" in client.logs("supernode"), 300
            )

            # What it printed is all that the server gets of it.
            (keys / "client-4.pub").write_text(public + "\n")
            assert "client 4: node " in server.compose("run", "--rm", "-T", "--no-deps", "register")
            client.compose("restart", "supernode")  # which would try again by itself, after a minute
            client.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "600")
            wait_for("the SuperNode", lambda: "SuperNode ID" in client.logs("supernode"), 300)
