"""``fedunlearn forget`` and ``fedunlearn requests``, on run directories and through a door."""

import io
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flwr.common.logger import ConsoleHandler
from typer.main import get_command

from fedunlearn.cli import live
from fedunlearn.cli.main import app, main
from fedunlearn.door.serve import DoorServer
from fedunlearn.requests import Intake, Ledger, Move
from fedunlearn.requests.transitions import path
from tests.door.served import Place, place, served
from tests.live.test_local import LIVE


@dataclass(frozen=True)
class Said:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command as the entry point does, in this process."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(live, "LOOK_SECONDS", 0.01)
    monkeypatch.delenv("FEDUNLEARN_TOKEN", raising=False)

    def run(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["fedunlearn", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Said(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def at(tmp_path: Path) -> Place:
    return place(tmp_path)


def ledger_of(at: Place) -> Ledger:
    return Ledger(at.folder / "requests.sqlite")


def lead(at: Place, state: str) -> threading.Thread:
    """Play the server: lead the first request that arrives to a state, step by step."""

    def serve() -> None:
        deadline = time.monotonic() + 30
        with ledger_of(at) as ledger:
            while not (asked := ledger.requests("federation")):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            for step in path("received", state) or ():
                ledger.transition_many("federation", [Move(asked[0].id, step, 3)])

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_a_request_on_this_machine_is_in_the_ledger_when_the_command_returns(
    at: Place, say: Callable[..., Said]
) -> None:
    said = say("forget", at.folder, "--client", 5, "--client", 2)
    assert (said.code, said.err) == (0, "")
    with ledger_of(at) as ledger:
        (record,) = ledger.requests("federation")
        assert (record.clients, record.source, record.actor) == ((2, 5), "cli", "operator:local")
        head = ledger.head("federation")
    assert said.out.splitlines() == [
        f"request {record.id}: received",
        f"head {head} (keep it: it proves that you made the request)",
        "no server is running; `fedunlearn run FILE --resume` or its supervisor starts one",
    ]
    again = say("forget", at.folder, "--client", 2)
    same = f"covers the same as {record.id}, which is still open: it is served together with that one, or on its own"
    assert same in again.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--client", "8"], "clients: 8 is not a client of this federation; must be from 0 to 7"),
        (["--client", "-1"], "clients: -1 is not a client"),
    ],
)
def test_a_client_that_is_none_is_exit_2_and_nothing_recorded(
    words: list[str], says: str, at: Place, say: Callable[..., Said]
) -> None:
    said = say("forget", at.folder, *words)
    assert (said.code, said.out) == (2, "") and says in said.err and said.err.count("\n") == 1
    with ledger_of(at) as ledger:
        assert ledger.requests("federation") == []


def test_a_place_that_is_none_is_exit_2_and_nothing_made(tmp_path: Path, say: Callable[..., Said]) -> None:
    said = say("forget", tmp_path, "--client", 1)
    assert said.code == 2 and "holds no experiment.toml; name the run directory" in said.err
    said = say("requests", tmp_path)
    assert said.code == 2 and "holds no requests.sqlite" in said.err
    assert list(tmp_path.iterdir()) == []


def test_only_a_live_federation_can_be_asked(at: Place, say: Callable[..., Said]) -> None:
    experiment = at.folder / "experiment.toml"
    text = experiment.read_text().replace("requests = {}", "targets = [[0]]")
    experiment.write_text(text.replace('until = "reference-accuracy", ', ""))
    said = say("forget", at.folder, "--client", 1)
    assert said.code == 2 and "only an experiment with a [requests] table does" in said.err, said.err
    assert not (at.folder / "requests.sqlite").exists()


@pytest.mark.parametrize(
    ("end", "code", "title"),
    [
        ("forgotten", 0, ""),
        ("excluded", 1, "Not forgotten: only excluded from training (excluded)"),
        ("refused", 1, "Not forgotten: refused (refused)"),
        ("forgotten-unrecovered", 1, "has not recovered"),
        ("withdrawn", 1, "Withdrawn"),
    ],
)
@pytest.mark.parametrize("remote", [False, True], ids=["here", "door"])
def test_waiting_follows_a_request_to_its_end(
    end: str, code: int, title: str, remote: bool, at: Place, say: Callable[..., Said], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(at.tokens["alice"] + "\n")
    server = lead(at, end)
    if remote:
        with served(at) as knock:
            said = say("forget", knock.url, "--client", 1, "--wait", "--token-file", token)
    else:
        said = say("forget", at.folder, "--client", 1, "--wait")
    server.join()
    lines = said.out.splitlines()
    assert said.code == code and lines[0].endswith(": received"), said
    assert title in said.err and (code == 0) == (said.err == "")
    assert lines[-1].endswith(f": {end}")


@pytest.mark.parametrize("remote", [False, True], ids=["here", "door"])
def test_whoever_asks_is_told_when_nobody_serves_the_run(
    remote: bool, at: Place, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(live.time, "sleep", interrupt)
    monkeypatch.setenv("FEDUNLEARN_TOKEN", at.tokens["alice"])
    with served(at) as knock, ledger_of(at) as server:
        where = knock.url if remote else at.folder
        hint = "no server is running"
        assert say("forget", where, "--client", 1).out.count(hint) == 1
        waiting = say("forget", where, "--client", 2, "--wait").out
        assert waiting.count(hint) == waiting.count("; waiting for a server") == 1
        lease = server.take_lease("federation", "somebody", seconds=1000)
        assert hint not in say("forget", where, "--client", 3).out
        lease.release()
        assert hint in say("forget", where, "--client", 4).out


@pytest.mark.parametrize("remote", [False, True], ids=["here", "door"])
def test_a_request_is_withdrawn_until_it_is_planned(
    remote: bool, at: Place, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDUNLEARN_TOKEN", at.tokens["alice"])
    with ledger_of(at) as ledger, served(at) as knock:
        intake = Intake(ledger, num_clients=8)
        first, second = (intake.ask([k], source="cli", actor="operator:x").request_id for k in (1, 2))
        ledger.commit_plan("federation", 1, {"requests": [second]})
        where = knock.url if remote else at.folder
        assert say("withdraw", where, first) == Said(0, f"request {first}: withdrawn\n", "")
        late = say("withdraw", where, second)
        assert late.code == 2 and late.err.count("\n") == 1
        assert f"request {second}: is scheduled; it can be withdrawn only while" in late.err
        unknown = say("withdraw", where, "r0")
        assert unknown.code == 2 and unknown.err.count("\n") == 1 and "request" in unknown.err
        assert [r.state for r in ledger.requests("federation")] == ["withdrawn", "scheduled"]
        assert ledger.audit("federation")[-1].detail == f"by operator:{'alice' if remote else 'local'}"


def test_why_a_request_was_not_served_stands_under_the_table(at: Place, say: Callable[..., Said]) -> None:
    with ledger_of(at) as ledger:
        intake = Intake(ledger, num_clients=8)
        ids = [
            intake.ask([k], source="cli", actor=who).request_id
            for k, who in enumerate(("client:0", "client:1", "operator:x", "client:3"))
        ]
        ends = {
            "refused": "it is [of] the last clients",
            "excluded": "offline",
            "failed": "",
            "forgotten": "well",
        }
        for request, (end, why) in zip(ids, ends.items(), strict=False):
            *steps, last = path("received", end) or ()
            for step in steps:
                ledger.transition("federation", request, step, round=1)
            ledger.transition("federation", request, last, round=1, detail=why)
    lines = say("requests", at.folder).out.splitlines()
    assert lines[-3:] == [
        f"{ids[0]} (asked by client) refused: it is [of] the last clients",
        f"{ids[1]} (asked by client) excluded: offline",
        f"{ids[2]} (asked by operator) failed: no reason given",
    ]
    assert say("requests", at.folder).out.count("(asked by") == 3, "not of those who got what they asked for"


def test_a_live_run_has_no_scorecard_and_says_where_to_look(at: Place, say: Callable[..., Said]) -> None:
    line = f"{at.folder}: live runs have no scorecard; see `fedunlearn requests {at.folder}` and its certificates"
    for command in ("report", "compare"):
        assert say(command, at.folder) == Said(2, "", f"error: {line}\n")


def test_help_texts_lose_nothing_to_markup(say: Callable[..., Said]) -> None:
    def texts(command: Any, name: str) -> Iterator[tuple[str, str]]:
        yield name, command.help or ""
        for one in command.params:
            yield f"{name} {one.name}", getattr(one, "help", None) or ""
        for sub, found in getattr(command, "commands", {}).items():
            yield from texts(found, f"{name} {sub}")

    found = dict(texts(get_command(app), "fedunlearn"))
    assert len(found) > 60
    for name, text in found.items():
        assert set(re.findall(r"(?<!\\)\[([^\]]*)\]", text)) <= {"bold", "/bold", "/"}, name
    assert "An experiment with [requests] is a live federation" in " ".join(say("run", "--help").out.split())


def test_help_calls_no_value_by_the_name_of_the_function_that_reads_it(say: Callable[..., Said]) -> None:
    for words in (["run"], ["check"], ["sweep"], ["data", "export"], ["keys", "new"], ["roster", "init"]):
        said = say(*words, "--help").out
        assert re.search(r"(file|path) +(PATH|ROSTER) ", said) and "EXPANDED" not in said, words


def test_logs_into_a_file_have_no_colours_and_no_token(say: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "live.toml").write_text(LIVE)
    logger = logging.getLogger("flwr")
    handler = ConsoleHandler(stream=io.StringIO())
    logger.addHandler(handler)
    try:
        assert say("run", tmp_path / "live.toml", "--out", tmp_path / "runs").code == 0
    finally:
        logger.removeHandler(handler)
    said = handler.stream.getvalue()
    assert "serves the federation as server number 1" in said
    assert "\x1b" not in said and "token" not in said


@pytest.mark.parametrize("words", [["forget", "--client", 1], ["requests"], ["withdraw", "r0"]])
def test_an_address_without_its_scheme_is_told_what_it_lacks(
    words: list[object], say: Callable[..., Said]
) -> None:
    command, *rest = words
    said = say(command, "fl.example.org:8443", *rest)
    line = (
        "error: fl.example.org:8443: is not a run directory; a door's URL begins with http:// or https://\n"
    )
    assert said == Said(2, "", line)


def test_a_door_is_nothing_to_verify(say: Callable[..., Said]) -> None:
    said = say("verify", "https://fl.example.org:8443")
    assert said.code == 2 and "verify a run on its own machine" in said.err and said.err.count("\n") == 1


def test_waiting_for_a_client_forgotten_already_is_soon_over(at: Place, say: Callable[..., Said]) -> None:
    server = lead(at, "forgotten")
    say("forget", at.folder, "--client", 1)
    server.join()
    said = say("forget", at.folder, "--client", 1, "--wait")
    assert said.code == 0 and ": duplicate" in said.out


def test_waiting_outlives_a_door_that_is_restarted(
    at: Place, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedunlearn.door.client import Remote, UnreachableError

    monkeypatch.setenv("FEDUNLEARN_TOKEN", at.tokens["1"])
    look, failures = Remote.request, []

    def failing(self: Remote, request_id: str) -> object:
        if len(failures) < 3:
            failures.append(1)
            raise UnreachableError("the door: cannot be reached")
        return look(self, request_id)

    monkeypatch.setattr(Remote, "request", failing)
    server = lead(at, "forgotten")
    with served(at) as knock:
        said = say("forget", knock.url, "--client", 1, "--wait")
    server.join()
    assert said.code == 0 and said.out.count("cannot be reached; still waiting") == 1


def test_stopping_to_wait_leaves_the_request(
    at: Place, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(live.time, "sleep", interrupt)
    said = say("forget", at.folder, "--client", 1, "--wait")
    assert said.code == 1 and re.search(r"stopped waiting; request r[0-9a-f]{16} is still received", said.out)
    with ledger_of(at) as ledger:
        assert ledger.counts("federation") == {"received": 1}


@pytest.mark.parametrize("content", [None, "", "  \n", "two words", "na\u00efve"])
def test_without_a_token_nothing_is_sent(
    content: str | None, at: Place, say: Callable[..., Said], tmp_path: Path
) -> None:
    words = []
    if content is not None:
        (tmp_path / "token").write_text(content)
        words = ["--token-file", tmp_path / "token"]
    said = say("forget", "http://127.0.0.1:1", "--client", 1, *words)
    assert said.code == 2 and "holds no token for the door; name its file with --token-file" in said.err


def test_a_token_file_that_cannot_be_read_is_told_in_words(say: Callable[..., Said], tmp_path: Path) -> None:
    said = say("forget", "http://127.0.0.1:1", "--client", 1, "--token-file", tmp_path / "nope")
    assert said == Said(
        2, "", f"error: --token-file {tmp_path / 'nope'}: cannot be read (No such file or directory)\n"
    )
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    said = say("forget", "http://127.0.0.1:1", "--client", 1, "--token-file", tmp_path / "bytes")
    assert said.code == 2 and "is not a text file; a token is one line of text" in said.err


def test_a_roster_with_a_client_too_many_is_told_when_the_door_opens(
    at: Place, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DoorServer, "run", lambda self: self._listener.close())
    words = ("door", at.folder, "--roster", at.roster, "--port", 0, "--insecure-loopback")
    line = f"{at.roster}: client:8 is not in this federation, whose clients are 0 to 7"
    logger = logging.getLogger("fedunlearn")
    handler = logging.StreamHandler(io.StringIO())
    logger.addHandler(handler)
    try:
        assert say(*words).code == 0 and handler.stream.getvalue() == ""
        say("roster", "add-client", at.roster, "--number", 8, "--no-token")
        assert say(*words).code == 0 and handler.stream.getvalue() == f"{line}\n"
    finally:
        logger.removeHandler(handler)


def test_a_roster_may_lie_at_home(
    at: Place, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(at.roster.parent))
    monkeypatch.chdir(at.folder)
    said = say("roster", "add-client", f"~/{at.roster.name}", "--number", 9, "--no-token")
    assert said.code == 0 and "number = 9" in at.roster.read_text(encoding="utf-8")


def test_supervise_passes_the_folder_on_and_refuses_another(
    say: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[list[str]] = []

    class Link:
        def __init__(self, name: object, *, run_config: list[str], **_: object) -> None:
            made.append(run_config)

        def close(self) -> None: ...

    monkeypatch.setattr("fedunlearn.deployment.superlink.FlowerSuperLink", Link)
    monkeypatch.setattr("fedunlearn.deployment.supervise.Supervisor.watch", lambda *_, **__: None)
    mine = f'folder="{tmp_path}"'
    assert say("supervise", "--folder", tmp_path, "-c", 'experiment="x"').code == 0
    assert say("supervise", "--folder", tmp_path, "-c", f'experiment="x" {mine}').code == 0
    assert [words[-1] for words in made] == [mine, mine]
    for settings, why in (
        (
            'experiment="x" folder="/elsewhere"',
            f'folder="/elsewhere": differs from --folder {tmp_path}; leave it out',
        ),
        ("settings.toml", "cannot be read (TOML files cannot be passed"),
    ):
        said = say("supervise", "--folder", tmp_path, "-c", settings)
        assert said.code == 2 and why in said.err and said.err.count("\n") == 1
    assert len(made) == 2


def test_requests_are_shown_here_and_through_the_door(
    at: Place, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ledger_of(at) as ledger:
        ids = [
            Intake(ledger, num_clients=8).ask([k], source="cli", actor="operator:x").request_id
            for k in (1, 2)
        ]
    monkeypatch.setenv("FEDUNLEARN_TOKEN", at.tokens["alice"])
    with served(at) as knock:
        shown = [say("requests", where) for where in (at.folder, knock.url)]
        refused = say("requests", knock.url, "--verify")
    assert [s.code for s in shown] == [0, 0] and shown[0].out == shown[1].out
    assert all(name in shown[0].out for name in ids)
    assert refused.code == 2 and "a trail can only be checked on its own machine" in refused.err


def test_verifying_tells_an_intact_trail_from_one_that_was_touched(
    at: Place, say: Callable[..., Said]
) -> None:
    receipts = [say("forget", at.folder, "--client", k).out for k in (1, 2, 3)]
    heads = [re.search(r"head (\S+)", text)[1] for text in receipts]
    for words in (["--verify"], *(["--head", head] for head in heads)):
        said = say("requests", at.folder, *words)
        assert said.code == 0 and f"federation: trail intact; head {heads[-1]}" in said.out, said
    with ledger_of(at) as ledger:
        last = ledger.requests("federation")[-1].id
        for table, column in (("audit", "request_id"), ("requests", "id"), ("named", "id")):
            ledger.store.rows(f"DELETE FROM {table} WHERE {column} = ?", last)
    assert say("requests", at.folder, "--verify").code == 0, "cut off and tidied up: only a head kept tells"
    said = say("requests", at.folder, "--head", heads[2])
    assert said.code == 1 and said.err == "failed: 1 of 1 trails is not intact\n"
    assert "the given head belongs to entry 3, but the trail ends at entry 2: it was cut off" in said.out
    with ledger_of(at) as ledger:
        ledger.store.rows("UPDATE audit SET at = at - 86400 WHERE entry = 1")
    said = say("requests", at.folder, "--verify")
    assert said.code == 1 and "entry 1 (request" in said.out
    said = say("requests", at.folder, "--head", "yesterday's")
    assert said.code == 2 and "must be an entry's number and its hash" in said.err


def test_verifying_looks_at_every_branch_of_a_simulation(at: Place, say: Callable[..., Said]) -> None:
    with ledger_of(at) as ledger:
        for branch in ("puf-0-s1", "natural-0-s1"):
            ledger.submit(branch, request_id="r", clients=[1], at_round=1)
        head = ledger.head("puf-0-s1")
    said = say("requests", at.folder, "--verify")
    assert said.code == 0 and said.out.count("trail intact") == 2
    said = say("requests", at.folder, "--head", head)
    assert said.code == 2 and "belongs to one trail, but this run has 2" in said.err


@pytest.mark.parametrize("remote", [False, True], ids=["here", "door"])
def test_a_share_single_samples_or_classes(
    remote: bool, at: Place, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDUNLEARN_TOKEN", at.tokens["alice"])
    monkeypatch.setenv("COLUMNS", "160")
    rows = at.folder / "rows.json"
    rows.write_text('{"3": [4, 1], "5": [0]}')
    asked = [
        (["--client", 3, "--samples", "0.5"], "50 % of the samples of client 3"),
        (["--client", 3, "--samples", "4,17,33"], "3 samples of client 3"),
        (["--client", 3, "--client", 5, "--samples", rows], "2 samples of client 3 and 1 sample of client 5"),
        (["--client", 3, "--class", 2, "--class", 5], "classes 2, 5 of client 3"),
        (["--class", 2], "class 2 of clients 0, 1, 2, 3, 4, 5, 6 and 7"),
    ]
    with served(at) as knock:
        where = knock.url if remote else at.folder
        for words, _ in asked:
            said = say("forget", where, *words)
            assert said.code == 0 and ": received" in said.out, said
        table = say("requests", where).out
        refused = [
            (say("forget", where), "--client: is missing"),
            (say("forget", where, "--samples", "0.5"), "--client: is missing"),
            (say("forget", where, "--client", 3, "--samples", "7"), "a single row with a comma: 7,"),
            (say("forget", where, "--client", 3, "--samples", "2.5"), "samples: "),
            (
                say("forget", where, "--client", 3, "--samples", "abc"),
                "--samples abc: must be a share such as",
            ),
            (say("forget", where, "--client", 3, "--class", 12), "classes: 12 is not a class"),
            (say("forget", where, "--client", 3, "--samples", "nowhere.json"), "cannot be read"),
        ]
    assert all(shown in table for _, shown in asked), table
    assert all(said.code == 2 and says in said.err and not said.out for said, says in refused), refused
    with ledger_of(at) as ledger:
        numbers = [record.clients for record in ledger.requests("federation")]
    assert numbers == [(8,), (9,), (10, 11), (12,), tuple(range(13, 21))]
