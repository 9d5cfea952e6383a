"""What the door says to whom: the whole table of roles, and the life of a request as a caller sees it."""

import http.client
import json
import logging
import threading

import pytest

from fedunlearn.requests import LIVE_BRANCH, Head, Ledger
from fedunlearn.requests.quota import OF_CLIENT
from tests.door.served import CLIENTS, Caller, Place, eventually

WHO = (None, "eye", "3", "4", "alice")


def ask(knock: Caller, who: str, clients: list[int], key: str | None = None):
    headers = {} if key is None else {"Idempotency-Key": key}
    return knock("POST", "/requests", who, {"clients": clients}, headers=headers)


def ledger(at: Place) -> Ledger:
    return Ledger(at.folder / "requests.sqlite")


def test_a_request_is_in_the_ledger_once_the_door_has_answered(knock, at) -> None:
    answer = ask(knock, "3", [3])
    assert answer.status == 202
    receipt = answer.json
    with ledger(at) as book:
        (record,) = book.requests(LIVE_BRANCH)
        assert (record.id, record.clients, record.state) == (receipt["request_id"], (3,), "received")
        assert (record.source, record.actor) == ("http", "client:3")
        assert book.check_trail(LIVE_BRANCH, head=Head.parse(receipt["head"])) == []
    assert answer.headers["Location"] == f"/requests/{record.id}"
    shown = knock("GET", answer.headers["Location"], "3").json
    assert {**shown, "actor": None} == {
        "request_id": record.id,
        "state": "received",
        "clients": [3],
        "same_as": None,
        "arrived_at": record.arrived_at,
        "actor": None,
        "unlearned_round": None,
        "ended_round": None,
    }


@pytest.mark.parametrize(
    ("method", "path", "document", "expected"),
    [
        ("POST", "/requests", {"clients": [3]}, (401, 403, 202, 403, 202)),
        ("POST", "/requests", {"clients": [3, 4]}, (401, 403, 403, 403, 202)),
        ("GET", "/requests", None, (401, 403, 200, 200, 200)),
        ("GET", "/requests/OF-3", None, (401, 403, 200, 403, 200)),
        ("GET", "/requests/OF-3-AND-4", None, (401, 403, 403, 403, 200)),
        ("GET", "/requests/NONE", None, (401, 403, 403, 403, 404)),
        ("DELETE", "/requests/OF-3", None, (401, 403, 403, 403, 200)),
        ("DELETE", "/requests/BY-3", None, (401, 403, 200, 403, 409)),
        ("DELETE", "/requests/OF-3-AND-4", None, (401, 403, 403, 403, 200)),
        ("DELETE", "/requests/NONE", None, (401, 403, 403, 403, 404)),
        ("GET", "/metrics", None, (401, 200, 403, 403, 200)),
        ("GET", "/health", None, (200, 200, 200, 200, 200)),
        ("GET", "/docs", None, (200, 200, 200, 200, 200)),
        ("GET", "/openapi.json", None, (200, 200, 200, 200, 200)),
        ("GET", "/nowhere", None, (401, 404, 404, 404, 404)),
        ("PUT", "/requests", None, (401, 405, 405, 405, 405)),
    ],
)
def test_who_may_do_what(knock, method, path, document, expected) -> None:
    own = ask(knock, "3", [3]).json["request_id"]
    for who, status in zip(WHO, expected, strict=True):
        three = ask(knock, "alice", [3]).json["request_id"]
        both = ask(knock, "alice", [3, 4]).json["request_id"]
        there = path.replace("OF-3-AND-4", both).replace("OF-3", three).replace("BY-3", own)
        answer = knock(method, there, who, document)
        assert answer.status == status, (who, answer.body)
        if status >= 400:
            assert answer.error
        if status == 401:
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_client_cannot_tell_anothers_request_from_none(knock) -> None:
    anothers = ask(knock, "alice", [4]).json["request_id"]
    for method in ("GET", "DELETE"):
        answers = [knock(method, f"/requests/{name}", "3") for name in (anothers, "r0000000000000000")]
        assert answers[0].body == answers[1].body
        assert answers[0].headers.keys() == answers[1].headers.keys()
    assert knock("GET", f"/requests/{anothers}", "4").json["state"] == "received"


def test_a_client_is_not_told_which_operator_asked_for_it(knock) -> None:
    name = ask(knock, "alice", [3]).json["request_id"]
    assert knock("GET", f"/requests/{name}", "3").json["actor"] is None
    assert knock("GET", f"/requests/{name}", "alice").json["actor"] == "operator:alice"
    own = ask(knock, "3", [3]).json["request_id"]
    assert knock("GET", f"/requests/{own}", "3").json["actor"] == "client:3"


def test_the_same_key_is_the_same_request(knock, at) -> None:
    first, again = ask(knock, "3", [3], "k"), ask(knock, "3", [3], "k")
    assert (first.status, again.status) == (202, 200)
    assert again.json == {**first.json, "repeated": True}
    assert again.headers["Location"] == first.headers["Location"]
    assert ask(knock, "alice", [3], "k").status == 202  # another's key
    conflict = ask(knock, "alice", [4], "k")
    assert conflict.status == 409 and "key" in conflict.error
    with ledger(at) as book:
        assert len(book.requests(LIVE_BRANCH)) == 2


def test_a_second_request_for_the_same_client_says_so(knock) -> None:
    first, second = ask(knock, "3", [3]).json, ask(knock, "3", [3]).json
    assert second["same_as"] == first["request_id"] != second["request_id"]


def test_only_who_asked_or_an_operator_withdraws(knock, at) -> None:
    operators, own = ask(knock, "alice", [3]).json["request_id"], ask(knock, "3", [3]).json["request_id"]
    part = knock("POST", "/requests", "alice", {"clients": [3], "samples": 0.5}).json["request_id"]
    for name in (operators, part):
        refused = knock("DELETE", f"/requests/{name}", "3")
        assert refused.status == 403 and "only its maker or an operator may withdraw it" in refused.error
        assert "alice" not in refused.error
        assert knock("GET", f"/requests/{name}", "3").json["state"] == "received"
    assert knock("DELETE", f"/requests/{own}", "3").json["state"] == "withdrawn"
    assert knock("DELETE", f"/requests/{operators}", "alice").json["state"] == "withdrawn"


def test_more_open_requests_than_one_may_have_are_429_for_that_one_alone(knock, at) -> None:
    made = [ask(knock, "3", [3], "first")] + [ask(knock, "3", [3]) for _ in range(OF_CLIENT.open - 1)]
    assert {answer.status for answer in made} == {202}
    for _ in range(3):
        refused = ask(knock, "3", [3])
        assert refused.status == 429 and int(refused.headers["Retry-After"]) == 60
        assert made[0].json["request_id"] in refused.error and "withdraw one" in refused.error
    assert ask(knock, "3", [3], "first").status == 200
    assert ask(knock, "4", [4]).status == 202
    with ledger(at) as book:
        assert book.counts(LIVE_BRANCH) == {"received": OF_CLIENT.open + 1}


def test_withdrawing_works_once_and_not_after_a_plan(knock, at) -> None:
    early, late = (ask(knock, "3", [3]).json["request_id"] for _ in range(2))
    assert knock("DELETE", f"/requests/{early}", "3").json["state"] == "withdrawn"
    again = knock("DELETE", f"/requests/{early}", "3")
    assert again.status == 409 and "withdrawn" in again.error
    with ledger(at) as book:
        book.commit_plan(LIVE_BRANCH, 1, {"requests": [late]})
    refused = knock("DELETE", f"/requests/{late}", "3")
    assert refused.status == 409 and "scheduled" in refused.error
    assert knock("GET", f"/requests/{late}", "3").json["state"] == "scheduled"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"[" * 60_000, "JSON"),
        (b"null", "JSON"),
        (b"[3]", "JSON"),
        (b"{}", "clients: is missing"),
        (b'{"clients": []}', "clients: "),
        (b'{"clients": 3}', "clients: "),
        (b'{"clients": ["3"]}', "clients[0]: "),
        (b'{"clients": [3.0]}', "clients[0]: "),
        (b'{"clients": [true]}', "clients[0]: "),
        (b'{"clients": [NaN]}', "clients[0]: "),
        (b'{"clients": [1, -1]}', "clients[1]: "),
        (b'{"clients": [1%s]}' % (b"0" * 30), "clients[0]: "),
        (b'{"clients": [1%s]}' % (b"0" * 5000), "JSON"),
        (b'{"clients": [99]}', "from 0 to 7"),
        (b'{"clients": [3], "why": "\\ud800"}', "why: "),
        (b'{"clients": [3], "\\ud800\\n\\u0000": 1}', ""),
    ],
)
def test_what_is_malformed_is_refused_in_one_line_and_not_recorded(knock, at, body, says) -> None:
    headers = {"Content-Type": "application/json"}
    answer = knock("POST", "/requests", "alice", body=body, headers=headers)
    assert answer.status == 422
    assert says in answer.error
    with ledger(at) as book:
        assert book.requests(LIVE_BRANCH) == []


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ({"clients": []}, "clients: must name at least 1 client"),
        ({}, "clients: is missing; name clients, or classes to forget every client's samples of them"),
        ({"clients": 3}, "clients: must be a list of client numbers, such as [3]"),
        ({"clients": ["3"]}, "clients[0]: must be a whole number"),
        ({"clients": [3.5]}, "clients[0]: must be a whole number"),
        ({"clients": [-1]}, "clients[0]: must be at least 0"),
        ({"clients": [2**31]}, "clients[0]: must be less than 2147483648"),
        ({"clients": [3], "client": 3}, "client: is not a key of a request; leave it out"),
        ({"clients": [1] * 5000}, "clients: may name at most 4096 clients"),
    ],
)
def test_a_mistake_in_a_request_is_told_in_plain_words(knock, body, line) -> None:
    assert knock("POST", "/requests", "alice", body).error == line


@pytest.mark.parametrize(
    ("query", "line"),
    [
        ("limit=0", "query limit: must be at least 1"),
        ("limit=1001", "query limit: must be at most 1000"),
        ("limit=x", "query limit: must be a whole number"),
        ("state=gone", "query state[0]: must be one of 'received', "),
    ],
)
def test_a_mistake_in_a_query_is_told_in_plain_words(knock, query, line) -> None:
    assert knock("GET", f"/requests?{query}", "alice").error.startswith(line)


def test_the_schema_calls_the_round_what_it_is(knock) -> None:
    told = knock("GET", "/openapi.json").json["components"]["schemas"]["RequestAnswer"]["properties"]
    assert told["unlearned_round"]["description"] == "The round in which the step was applied."


@pytest.mark.parametrize("key", ["", "a b", "k" * 256, "schlüssel"])
def test_a_key_is_plain_characters(knock, key) -> None:
    headers = {"Idempotency-Key": key.encode("latin-1")}
    answer = knock("POST", "/requests", "3", {"clients": [3]}, headers=headers)
    assert answer.status == 422 and "Idempotency-Key" in answer.error


def test_a_body_that_is_not_said_to_be_json_is_refused(knock) -> None:
    """Browsers send other types across sites without asking; they cannot set the token either."""
    answer = knock("POST", "/requests", "3", body=b'{"clients": [3]}', headers={"Content-Type": "text/plain"})
    assert answer.status == 422 and "application/json" in answer.error


def test_lists_come_in_pages_and_by_state(knock) -> None:
    names = [ask(knock, "alice", [n % CLIENTS]).json["request_id"] for n in range(7)]
    knock("DELETE", f"/requests/{names[2]}", "alice")
    found, after = [], 0
    while after is not None:
        page = knock("GET", f"/requests?limit=3&after={after}", "alice").json
        found += [record["request_id"] for record in page["requests"]]
        after = page["next"]
    assert found == names
    withdrawn = knock("GET", "/requests?state=withdrawn&state=refused", "alice").json
    assert [record["request_id"] for record in withdrawn["requests"]] == [names[2]]
    assert knock("GET", "/requests", "3").json["requests"][0]["request_id"] == names[3]
    assert len(knock("GET", "/requests", "3").json["requests"]) == 1
    for wrong in ("limit=0", "limit=1001", "limit=x", "after=-1", "state=gone"):
        answer = knock("GET", f"/requests?{wrong}", "alice")
        assert answer.status == 422 and wrong.partition("=")[0] in answer.error


def test_every_method_of_a_path_is_named(knock) -> None:
    for path, allowed in (("/requests", "GET, POST"), ("/requests/r1", "DELETE, GET"), ("/health", "GET")):
        for method in ("PUT", "OPTIONS", "TRACE", "BREW"):
            answer = knock(method, path, "alice")
            assert (answer.status, answer.headers["Allow"]) == (405, allowed)
            assert allowed in answer.error
    head = knock("HEAD", "/requests", "alice")
    assert (head.status, head.body) == (405, b"")


@pytest.mark.parametrize(
    "path", ["/requests/", "//requests", "/requests/a/b", "/requests/%2e%2e", "/requests/%00"]
)
def test_paths_are_taken_literally_and_never_redirect(knock, path) -> None:
    answer = knock("GET", path, "alice")
    assert answer.status == 404 and answer.error
    assert "Location" not in answer.headers


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic YWxpY2U6",
        "Bearer nope",
        "bearer \xe9",
        "Token {alice}",
        "Bearer {alice}x",
    ],
)
def test_anything_but_a_known_token_is_401_and_not_repeated(knock, value) -> None:
    sent = value.format(alice=knock.tokens["alice"])
    answer = knock("GET", "/requests", headers={"Authorization": sent})
    assert answer.status == 401
    assert knock.tokens["alice"][:8] not in answer.error


def test_two_tokens_are_none(knock) -> None:
    connection = http.client.HTTPConnection(*knock.address, timeout=30)
    connection.putrequest("GET", "/requests")
    for who in ("3", "alice"):
        connection.putheader("Authorization", f"Bearer {knock.tokens[who]}")
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()


def test_answers_are_not_to_be_kept_or_framed(knock) -> None:
    for path in ("/health", "/docs", "/requests", "/nowhere"):
        headers = knock("GET", path).headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "Server" not in headers


def test_logs_hold_no_secret(knock, caplog) -> None:
    token = knock.tokens["alice"]

    def lines() -> list[str]:
        return [r.getMessage() for r in caplog.records if r.name.startswith("fedunlearn.door")]

    with caplog.at_level(logging.DEBUG):
        knock("GET", f"/requests/{token}?token={token}", "alice")
        knock("GET", f"/{token}", "alice")
        knock("GET", "/requests", headers={"Authorization": f"Bearer {token}x"})
        ask(knock, "alice", [3], key=token)
        knock("".join(filter(str.isalnum, token)), "/requests", "alice")
        eventually(lambda: len(lines()) == 5)  # a line is written once its answer has gone
    assert "GET /requests/{request_id} 404 operator:alice" in lines()[0]
    assert token[:8] not in caplog.text


def test_an_error_in_the_door_shows_nothing_outside(knock, monkeypatch, caplog) -> None:
    def broken(*args, **kwargs):
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr("fedunlearn.requests.intake.Intake.ask", broken)
    answer = ask(knock, "3", [3])
    assert answer.status == 500
    assert answer.error == "internal error of the door; see its log"
    assert "ZeroDivisionError" in caplog.text
    assert [r.getMessage() for r in caplog.records if r.exc_info] == ["internal error of the door"]
    monkeypatch.undo()
    assert ask(knock, "3", [3]).status == 202


def test_concurrent_askers_with_one_key_make_one_request(knock, at) -> None:
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(ask(knock, "3", [3], "k"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status for answer in answers) == [200] * 15 + [202]
    assert len({json.dumps({**answer.json, "repeated": None}) for answer in answers}) == 1
    with ledger(at) as book:
        assert len(book.requests(LIVE_BRANCH)) == 1
