"""``fedunlearn forget URL`` and ``fedunlearn requests URL`` at a door that is open."""

import inspect
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedunlearn.cli.main import app
from fedunlearn.door.client import Remote
from fedunlearn.errors import UserError
from fedunlearn.requests import LIVE_BRANCH, Ledger
from tests.door.served import Caller, Place, eventually, served


@pytest.fixture
def token_file(at: Place, tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(at.tokens["3"] + "\n")
    return path


def fedunlearn(*words: object) -> str:
    result = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_client_asks_and_looks(knock: Caller, at: Place, token_file: Path) -> None:
    shown = fedunlearn("forget", knock.url, "--client", 3, "--token-file", token_file)
    with Ledger(at.folder / "requests.sqlite") as ledger:
        (record,) = ledger.requests(LIVE_BRANCH)
        head = str(ledger.head(LIVE_BRANCH))
    assert record.actor == "client:3" and record.id in shown and head in shown
    assert record.id in fedunlearn("requests", knock.url, "--token-file", token_file)
    with pytest.raises(UserError, match="only for itself"):
        fedunlearn("forget", knock.url, "--client", 4, "--token-file", token_file)
    with pytest.raises(UserError, match="not, or no longer, in the roster"):
        Remote(knock.url, "nonsense").requests()


def test_both_sides_mean_the_same_request(knock: Caller, at: Place) -> None:
    remote = Remote(knock.url, at.tokens["alice"])
    first = remote.ask([3, 4], idempotency_key="k")
    assert remote.ask([4, 3], idempotency_key="k") == {**first, "repeated": True}
    for client in range(5):
        remote.ask([client], idempotency_key=str(client))
    with Ledger(at.folder / "requests.sqlite") as ledger:
        held = ledger.requests(LIVE_BRANCH)
    names = ("id", "clients", "state", "arrived_at", "actor", "same_as", "unlearned_round", "ended_round")
    for record, seen in zip(held, remote.requests(), strict=True):
        assert [getattr(record, name) for name in names] == [getattr(seen, name) for name in names]
    assert remote.request(first["request_id"]).clients == (3, 4)


def test_waiting_follows_a_request_to_its_end(at: Place, token_file: Path, monkeypatch) -> None:
    monkeypatch.setattr("fedunlearn.cli.live.LOOK_SECONDS", 0.05)
    said: list[str] = []
    with served(at) as knock:
        words = ("forget", knock.url, "--client", 3, "--wait", "--token-file", token_file)
        waiting = threading.Thread(target=lambda: said.append(fedunlearn(*words)))
        waiting.start()
        with Ledger(at.folder / "requests.sqlite") as ledger:
            eventually(lambda: bool(ledger.requests(LIVE_BRANCH)))
            (record,) = ledger.requests(LIVE_BRANCH)
            ledger.commit_plan(LIVE_BRANCH, 1, {"requests": [record.id]})
            for state in ("unlearning", "recovering", "forgotten"):
                ledger.transition(LIVE_BRANCH, record.id, state, round=1)
        waiting.join(30)
    assert "forgotten" in said[0]


def test_unless_told_otherwise_nothing_outside_this_machine_can_knock() -> None:
    hosts = {
        command.callback.__name__: inspect.signature(command.callback).parameters["host"].default
        for command in app.registered_commands
        if command.callback is not None and "host" in inspect.signature(command.callback).parameters
    }
    assert hosts == {"door": "127.0.0.1"}
