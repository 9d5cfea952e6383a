"""One federation under compose, from nothing to certificates: trespassed against, asked to forget, killed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.containers.asker import CLIENTS, Door
from tests.containers.stack import Stack, stack, wait_for

INSIDE = Path(__file__).parent / "inside"
INTRUDER, KILL, RECORD, REPLAY = (
    (INSIDE / f"{name}.py").read_text() for name in ("intruder", "kill", "record", "replay")
)
PATIENCE = 300.0  # seconds that one thing may take on a machine that is busy with something else
DONE = ("forgotten", "forgotten-unrecovered")
LASTING = (
    "serverapp",
    "proxy",
    "door",
    *(f"{kind}-{k}" for kind in ("supernode", "clientapp") for k in range(CLIENTS)),
)


@pytest.mark.slow
@pytest.mark.containers
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("images")
def test_from_nothing_to_certificates(tmp_path: Path) -> None:
    with stack("federation") as project:
        project.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "600", *LASTING)
        made = ("server-keys", "join", *(f"keys-{k}" for k in range(CLIENTS)))
        states = project.states()
        assert {states[name] for name in made} == {"exited 0"}
        door = Door(project, tmp_path)
        trespass(project)
        project.compose("up", "--detach", "--no-build", "supervisor")  # one command submits the run
        asked = live_through_it(project, door)
        done_once(project, asked)
        same_without_kills(project)
        on_paper(project, asked, tmp_path)
        foreign_bundle(project)


def trespass(project: Stack) -> None:
    """A client reaches the fleet calls and nothing else, however it spells what it wants."""
    found = json.loads(project.python("supernode-1", INTRUDER, project.address("superlink")))
    assert found["start-run"] == found["register-node"] == 403
    assert len(found["paths"]) > 70
    assert {path: status for path, status in found["paths"].items() if status != 403} == {}
    assert found["get"] == 403
    assert found["unsigned"] == 401  # comes through to the SuperLink, which asks for the node's signature
    assert found["proxy"] and not found["superlink"]
    # Where its program runs there is not even a machine that refuses a connection.
    said = project.python("clientapp-1", GATEWAY).split()
    assert said and "ConnectionRefusedError" not in said and "reached" not in said


def live_through_it(project: Stack, door: Door) -> dict[str, Any]:
    """Ask, and kill whatever can be killed; return the requests, and what was told of them."""

    def logs() -> str:
        return project.logs("supervisor", "serverapp", "superlink")

    def kill_serverapp() -> bool:
        return bool(project.python("serverapp", KILL, "flwr-serverapp").strip())

    wait_for("round 2", lambda: running(door) >= 2, PATIENCE, logs)

    # While it runs, client 1 asks to be forgotten; nobody else may ask for it.
    assert door.ask(1, by=None).status_code == 401
    assert door.ask(1, by="client-0").status_code == 403
    while_round = running(door)
    assert while_round >= 2
    answer = door.ask(1, by="client-1", key="mine")
    assert answer.status_code == 202, answer.text
    receipt = answer.json()
    again = door.ask(1, by="operator", key="again")
    assert again.status_code == 202, again.text
    everyone = door.ask(*range(CLIENTS), by="operator")
    assert everyone.status_code == 202, everyone.text

    # A client's machine fails and comes back; the round goes on without it.
    project.fail("supernode-2", "clientapp-2")

    # The door dies and comes back by itself. What it had acknowledged is there, under the same key the same.
    assert project.python("door", KILL, "fedunlearn", check=False).strip()  # the container ends with it
    wait_for("the door", lambda: (door.found(), door.answers())[1], PATIENCE, lambda: project.logs("door"))
    repeated = door.ask(1, by="client-1", key="mine")
    assert repeated.status_code == 200, repeated.text
    assert (repeated.json()["request_id"], repeated.json()["repeated"]) == (receipt["request_id"], True)
    progress(door, "the client's death", logs)

    # The ServerApp dies. Before the supervisor submits the run again, client 0 has changed its mind.
    wait_for("a ServerApp to kill", kill_serverapp, PATIENCE, logs)
    regretted = door.ask(0, by="client-0")
    assert regretted.status_code == 202, regretted.text
    path = f"/requests/{regretted.json()['request_id']}"
    assert door.send("DELETE", path, by="client-2").status_code == 403
    assert door.send("DELETE", path, by="client-0").json()["state"] == "withdrawn"
    progress(door, "the ServerApp's death", logs)

    # So does the SuperLink, while a round runs; and the run comes to its end.
    wait_for("a round to interrupt", lambda: running(door), PATIENCE, logs)
    project.fail("superlink")
    progress(door, "the SuperLink's death", logs)
    wait_for(
        "the end of the run",
        lambda: "is complete; waiting for requests" in project.logs("supervisor"),
        PATIENCE,
        logs,
    )
    return {
        "receipt": receipt,
        "while_round": while_round,
        "ends": {
            receipt["request_id"]: DONE,
            again.json()["request_id"]: ("duplicate",),
            everyone.json()["request_id"]: ("refused",),
            regretted.json()["request_id"]: ("withdrawn",),
        },
    }


def running(door: Door) -> int:
    """Return the round that is running, or 0."""
    planned, complete = door.rounds()
    return planned if planned > complete else 0


def progress(door: Door, since: str, logs: Callable[[], object]) -> None:
    """Wait until one more round is complete."""
    before = door.rounds()[1]
    wait_for(f"a round after {since}", lambda: door.rounds()[1] > before, PATIENCE, logs)


def done_once(project: Stack, asked: dict[str, Any]) -> None:
    """Every request is in its right end state, nobody was forgotten twice, and the trail is whole."""
    record = json.loads(project.python("door", RECORD))
    ends, mine = asked["ends"], asked["receipt"]["request_id"]
    assert record["states"].keys() == ends.keys(), "none lost, none made up"
    assert {id_: s for id_, s in record["states"].items() if s not in ends[id_]} == {}
    entries = Counter(map(tuple, record["entries"]))
    assert entries[mine, "recovering"] == 1

    (unlearned,) = record["unlearned"].values()
    assert unlearned > asked["while_round"]
    forgotten = Counter(
        k for p in record["plans"] if p["requests"] for k in p["forget"] if p["round"] == unlearned
    )
    assert forgotten == {1: 1}
    assert all(1 not in p["train"] for p in record["plans"] if p["round"] >= unlearned)
    assert [round for round, client in record["trained"] if client == 2 and round >= unlearned], (
        "2 never came back"
    )
    assert len(set(record["servers"])) >= 2

    assert record["trail"] == []
    assert record["signed"] > 0
    assert set(record["certificates"]) == set(ends)


def same_without_kills(project: Stack) -> None:
    """The record alone, executed by the local engine and with nobody killed, ends in the same weights."""
    ends = json.loads(project.python("serverapp", REPLAY).splitlines()[-1])
    assert ends["lived"] == ends["again"]
    assert ends["lived"]["round"] >= 6


def on_paper(project: Stack, asked: dict[str, Any], folder: Path) -> None:
    """The trail holds with the receipt's head in it, and the certificates are signed."""
    head, request_id = asked["receipt"]["head"], asked["receipt"]["request_id"]
    project.within("door", "fedunlearn", "requests", "/federation", "--verify", "--head", head)
    public = "/keys/serverapp/signing.pem.pub"
    said = project.within("serverapp", "fedunlearn", "verify", "/federation", "--public-key", public)
    assert request_id in said
    page = project.fetch("door", f"/federation/certificates/{request_id}.json", folder)
    assert json.loads(page.read_text())


# What becomes of a connection to the machine that the container runs on, on a port where nobody listens.
GATEWAY = """
import socket, struct
from pathlib import Path
for line in Path("/proc/net/route").read_text().splitlines()[1:]:
    if line.split()[1] == "00000000":
        address = socket.inet_ntoa(struct.pack("<L", int(line.split()[2], 16)))
        try:
            socket.create_connection((address, 1), timeout=5)
            print("reached")
        except OSError as error:
            print(type(error).__name__)
"""

# The image's app with one line more, which would leave a mark where it runs.
FOREIGN_BUNDLE = """
cd /tmp && cp -r /opt/fedunlearn/app /tmp/app &&
printf '\\nopen("/federation/foreign", "w").close()\\n' >>/tmp/app/fedunlearn/strategies/server_app.py
""".strip()


def foreign_bundle(project: Stack) -> None:
    """An app bundle other than the image's is unpacked nowhere, neither on the server nor at a client."""
    project.within("clientapp-1", "sh", "-c", f"{FOREIGN_BUNDLE} && flwr build --app /tmp/app")
    said = project.within("clientapp-1", "sh", "-c", "flwr install /tmp/*.fab 2>&1", check=False)
    assert "Read-only file system" in said
    project.compose("stop", "supervisor")
    submit = f"{FOREIGN_BUNDLE} && flwr run /tmp/app federation"
    project.compose("run", "--rm", "--no-deps", "-T", "--entrypoint", "sh", "join", "-c", submit)
    wait_for("the foreign bundle's refusal", lambda: "Read-only file system" in last_run(project), PATIENCE)
    assert "foreign" not in project.within("serverapp", "ls", "/federation")


def last_run(project: Stack) -> str:
    """Return what Flower says of the run submitted last."""
    words = ("run", "--rm", "--no-deps", "-T", "--entrypoint", "flwr", "join", "ls", "--format", "json")
    text = project.compose(*words)
    return json.dumps(json.loads(text[text.index("{") :])["runs"][0])
