"""What the supervisor makes of a SuperLink's answers, and of none."""

import json
from types import SimpleNamespace

import httpx
import pytest
from flwr.supercore.error import ApiErrorCode

from fedunlearn.deployment import superlink
from fedunlearn.deployment.superlink import FlowerSuperLink, RunState, UnreachableError, _answer
from fedunlearn.errors import UserError


class Client:
    """A connection that answers what it is told to."""

    def __init__(self, answer):
        self.answer, self.asked, self.closed = answer, [], False

    def ListRuns(self, request):  # noqa: N802 - Flower's
        self.asked.append(request.run_id)
        if isinstance(self.answer, Exception):
            raise self.answer
        status, sub_status, details = self.answer
        found = SimpleNamespace(status=status, sub_status=sub_status, details=details)
        return SimpleNamespace(run_dict={7: SimpleNamespace(status=found)})

    StopRun = ListRuns

    def close(self):
        self.closed = True


def connected(answer):
    link = FlowerSuperLink("tls", app=".", run_config=[])
    link._client = Client(answer)
    return link


def refusal(code):
    request = httpx.Request("POST", "https://superlink")
    body = json.dumps({"code": code, "detail": "no such thing"})
    return httpx.HTTPStatusError(
        "400", request=request, response=httpx.Response(400, text=body, request=request)
    )


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (("pending", "", ""), RunState("pending")),
        (("running", "", ""), RunState("running")),
        (("finished", "completed", ""), RunState("completed")),
        (("finished", "failed", "out of luck"), RunState("failed", "out of luck")),
        (("finished", "stopped", ""), RunState("stopped")),
    ],
)
def test_a_finished_run_is_known_by_how_it_ended(answer, state):
    found = connected(answer).state("7")
    assert found == state
    assert found.ended == (answer[0] == "finished")


def test_a_run_that_the_superlink_does_not_know_is_no_error():
    link = connected(refusal(ApiErrorCode.RUN_ID_NOT_FOUND))
    assert link.state("7") is None
    link.stop("7")
    assert link._client.asked == [7, 7]


def test_stopping_a_run_that_has_ended_does_nothing():
    connected(refusal(ApiErrorCode.RUN_ALREADY_FINISHED)).stop("7")


def test_what_it_refuses_otherwise_is_said_and_the_connection_kept():
    link = connected(refusal(ApiErrorCode.FEDERATION_NOT_FOUND_OR_NO_PERMISSION))
    with pytest.raises(UnreachableError, match="the SuperLink replied: no such thing"):
        link.state("7")
    assert link._client is not None


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("refused"), httpx.ReadTimeout(""), OSError("no certificate")]
)
def test_one_that_does_not_answer_is_connected_to_anew(error):
    link = connected(error)
    client = link._client
    with pytest.raises(UnreachableError, match="the SuperLink does not answer: "):
        link.state("7")
    assert client.closed and link._client is None


def test_a_connection_that_is_not_configured_is_the_users_error(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text(
        '[superlink]\ndefault = "a"\n[superlink.a]\naddress = "127.0.0.1:1"\n'
    )
    with pytest.raises(UserError, match="elsewhere"):
        FlowerSuperLink("elsewhere", app=tmp_path, run_config=[]).state("7")


@pytest.fixture
def flwr(tmp_path, monkeypatch):
    """Return a function that puts a program in flwr's place; what it was called with is in ``words``."""

    def flwr(*, prints="", complains="", code=0):
        program = tmp_path / "flwr"
        program.write_text(
            f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/words\n"
            f"cat <<'END'\n{prints}\nEND\ncat >&2 <<'END'\n{complains}\nEND\nexit {code}\n"
        )
        program.chmod(0o700)
        monkeypatch.setattr(superlink, "_flwr", lambda: str(program))
        return tmp_path / "words"

    return flwr


def test_submitting_is_flwr_run_and_its_answer_the_run(flwr, tmp_path):
    words = flwr(prints='Loading\n{"success": true, "run-id": "42"}')
    link = FlowerSuperLink("tls", app=tmp_path, run_config=["a=1", 'b="x y"'], federation="@none/default")
    assert link.submit() == "42"
    assert words.read_text().splitlines() == [
        *("run", str(tmp_path), "tls", "--run-config", "a=1", "--run-config", 'b="x y"'),
        *("--federation", "@none/default", "--format", "json"),
    ]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            {"prints": '{"success": false, "error-message": "Using it\\nit is full\\n"}', "code": 1},
            "it is full",
        ),
        ({"complains": "Traceback\nKeyError: 'app'", "code": 1}, "KeyError: 'app'"),
        ({"prints": "{", "code": 3}, r"\{"),
        ({"code": 3}, "exit code 3"),
    ],
)
def test_why_a_run_was_not_submitted_is_one_line(flwr, said, why, tmp_path):
    flwr(**said)
    with pytest.raises(UnreachableError, match=rf"^flwr run did not submit the run: {why}$"):
        FlowerSuperLink(None, app=tmp_path, run_config=[]).submit()


def test_connecting_leaves_no_line_in_the_supervisors_log(tmp_path, monkeypatch, capsys):
    """It connects anew at every look, for as long as nobody answers."""
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text(
        '[superlink]\ndefault = "a"\n[superlink.a]\naddress = "127.0.0.1:1"\ninsecure = true\n'
    )
    with pytest.raises(UnreachableError):
        FlowerSuperLink("a", app=tmp_path, run_config=[]).state("7")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("printed", "answer"),
    [
        (
            'Loading…\n{"success": true, "run-id": 18446744073709551615}\n',
            {"success": True, "run-id": 2**64 - 1},
        ),
        ("Loading…\n", {}),
        ('{"success": true', {}),
        ('{"a":' * 100_000, {}),
    ],
)
def test_what_flwr_prints_is_read_or_is_nothing(printed, answer):
    assert _answer(printed) == answer
