"""Asking at a door from afar: a real one, and stand-ins that answer badly."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.door.client import Remote, UnreachableError
from fedunlearn.door.serve import Tls
from fedunlearn.errors import UserError
from fedunlearn.requests import Intake, Ledger
from tests.door.served import CLIENTS, Place, place, served
from tests.door.test_wire import tls as tls

RECEIPT = {"request_id": "r1", "state": "received", "same_as": None, "head": "1:" + "0" * 64}


class Stand:
    """A stand-in for a door: gives the prepared answers in turn, the last for ever, and notes what it is told."""

    def __init__(self, *answers: tuple[int, dict[str, str], bytes] | None) -> None:
        self.answers = list(answers)
        self.heard: list[tuple[str, str, dict[str, str], bytes]] = []

    def next(self) -> tuple[int, dict[str, str], bytes] | None:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def standing(stand: Stand) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            stand.heard.append((self.command, self.path, dict(self.headers), body))
            answer = stand.next()
            if answer is None:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            status, headers, content = answer
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ok(document: Any) -> tuple[int, dict[str, str], bytes]:
    return (200, {}, json.dumps(document).encode())


def remote(url: str, pauses: list[float] | None = None, **options: Any) -> Remote:
    return Remote(url, "secret", pause=(pauses if pauses is not None else []).append, **options)


@pytest.fixture
def at(tmp_path: Path) -> Place:
    return place(tmp_path)


def test_a_request_at_a_real_door_is_in_the_ledger_and_shown(at: Place) -> None:
    with served(at) as knock, Ledger(at.folder / "requests.sqlite") as ledger:
        operator, client = Remote(knock.url, at.tokens["alice"]), Remote(knock.url + "/", at.tokens["3"])
        receipt = operator.ask([5, 2], idempotency_key="k")
        assert operator.ask([2, 5], idempotency_key="k") == receipt | {"repeated": True}
        own = client.ask([3], idempotency_key="k")
        record = ledger.request("federation", receipt["request_id"])
        assert (record.clients, record.source, record.actor) == ((2, 5), "http", "operator:alice")
        for state in ("scheduled", "unlearning", "recovering", "forgotten"):
            ledger.transition("federation", record.id, state, round=4)
        seen = operator.request(record.id)
        assert (seen, seen.arrived_at) == (_as_seen(ledger, record.id), record.arrived_at)
        assert [r.id for r in operator.requests()] == [record.id, own["request_id"]]
        assert [r.id for r in client.requests()] == [own["request_id"]]
        for refused, says in [
            (lambda: client.request(record.id), "this is not your request"),
            (lambda: client.ask([2], idempotency_key="l"), "client"),
            (lambda: operator.ask([CLIENTS], idempotency_key="l"), "clients"),
            (lambda: operator.ask([1], idempotency_key="k"), "key"),
            (lambda: operator.request("r0"), "no such request"),
            (lambda: remote(knock.url).requests(), "token"),
        ]:
            with pytest.raises(UserError, match=says) as caught:
                refused()
            assert str(caught.value).startswith(f"{knock.url}: ") and "\n" not in str(caught.value)
        assert len(ledger.requests("federation")) == 2


def test_a_thousand_requests_and_more_are_shown_page_by_page(at: Place) -> None:
    with Ledger(at.folder / "requests.sqlite") as ledger, ledger.batch():
        intake = Intake(ledger, num_clients=CLIENTS)
        ids = [intake.ask([k % 8], source="cli", actor="operator:x").request_id for k in range(1001)]
    with served(at) as knock:
        assert [r.id for r in Remote(knock.url, at.tokens["alice"]).requests()] == ids


def test_over_tls_a_certificate_must_be_vouched_for(at: Place, tls: Tls) -> None:
    with served(at, tls=tls) as knock:
        assert Remote(knock.url, at.tokens["alice"], authority=tls.certificate).requests() == []
        with pytest.raises(UserError, match=r"its certificate is not trusted .* with --tls-ca"):
            remote(knock.url).requests()
        other_name = knock.url.replace("127.0.0.1", "localhost")
        with pytest.raises(UserError, match="its certificate is not trusted"):
            remote(other_name, authority=tls.certificate).requests()


def _as_seen(ledger: Ledger, request_id: str) -> Any:
    record = ledger.request("federation", request_id)
    return replace(record, state_round=None, arrival=1)


def test_an_answer_that_got_lost_is_asked_for_again_under_the_same_key() -> None:
    stand, pauses = (
        Stand(None, (503, {"Retry-After": "7"}, b'{"error": "busy"}'), (429, {}, b"{}"), ok(RECEIPT)),
        [],
    )
    with standing(stand) as url:
        assert remote(url, pauses).ask([4], idempotency_key="mine") == RECEIPT
    assert pauses == [1.0, 7.0, 4.0]
    keys = [{k.lower(): v for k, v in headers.items()} for _, _, headers, _ in stand.heard]
    assert len(keys) == 4 and {k["idempotency-key"] for k in keys} == {"mine"}
    assert {k["authorization"] for k in keys} == {"Bearer secret"}
    assert {(method, path, body) for method, path, _, body in stand.heard} == {
        ("POST", "/requests", b'{"clients": [4]}')
    }


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "cannot be reached"),
        ((503, {"Retry-After": "86400"}, b'{"error": "the ledger is busy"}'), "the ledger is busy"),
        ((502, {}, b"<html>Bad Gateway</html>"), "HTTP status 502 without a door's error"),
    ],
)
def test_a_door_that_does_not_answer_is_given_up_after_some_attempts(answer: Any, says: str) -> None:
    stand, pauses = Stand(answer), list[float]()
    with standing(stand) as url, pytest.raises(UnreachableError, match=says):
        remote(url, pauses).ask([4], idempotency_key="k")
    assert len(stand.heard) == 4 and len(pauses) == 3 and max(pauses) <= 10.0


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((401, {}, b'{"error": "who are you"}'), "who are you"),
        ((404, {}, b"<html>"), "HTTP status 404 without a door's error; is this its address"),
        ((422, {}, b'["error"]'), "HTTP status 422"),
        ((429, {"Retry-After": "60"}, b'{"error": "client:3 has 32 open requests"}'), "client:3 has 32 open"),
        ((200, {}, b"<html>Welcome to nginx</html>"), "does not answer like a door"),
        ((200, {}, b"[]"), "does not answer like a door"),
    ],
)
def test_a_refusal_is_final_and_in_one_line(answer: Any, says: str) -> None:
    stand = Stand(answer)
    with standing(stand) as url, pytest.raises(UserError, match=says) as caught:
        remote(url).ask([4], idempotency_key="k")
    assert len(stand.heard) == 1 and "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_token_follows_no_redirect(status: int) -> None:
    other = Stand(ok(RECEIPT))
    with standing(other) as elsewhere:
        stand = Stand((status, {"Location": elsewhere + "/requests"}, b""))
        with standing(stand) as url:
            for call in (lambda: remote(url).ask([1], idempotency_key="k"), lambda: remote(url).requests()):
                with pytest.raises(UserError, match=f"HTTP status {status}"):
                    call()
    assert len(stand.heard) == 2 and other.heard == []


def test_no_proxy_sees_what_goes_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, stand = Stand(ok(RECEIPT)), Stand(ok(RECEIPT))
    with standing(proxy) as elsewhere, standing(stand) as url:
        monkeypatch.setenv("http_proxy", elsewhere)
        remote(url).ask([1], idempotency_key="k")
    assert len(stand.heard) == 1 and proxy.heard == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://hospital.example:8443", "would send the token unencrypted"),
        ("http://192.0.2.1", "would send the token unencrypted"),
        ("http://127.0.0.1.example.org", "would send the token unencrypted"),
        ("ftp://127.0.0.1", "is not a door's address"),
        ("https://", "is not a door's address"),
        ("https://server/requests?limit=1", "is not a door's address"),
    ],
)
def test_addresses_to_which_no_token_goes(url: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        remote(url)


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1", "https://hospital.example"]
)
def test_addresses_that_will_do(url: str) -> None:
    assert remote(url).url == url


def test_an_authority_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no certificate\n")
    for name in ("no.pem", "missing.pem"):
        with pytest.raises(UserError, match=f"{name}: cannot be read as certificates"):
            remote("https://127.0.0.1:1", authority=tmp_path / name)
