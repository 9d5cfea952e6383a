"""Peers that hold connections and say nothing, or nothing sensible, keep nobody else out; over TLS and without."""

import contextlib
import dataclasses
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest

from benchmarks.door_silence import KINDS, WITHIN, open_one, probe
from fedunlearn.requests import Intake
from tests.door.served import GENEROUS, Caller, Place, eventually, served
from tests.door.test_wire import connect, tls, until_closed

__all__ = ["tls"]
SMALL = dataclasses.replace(GENEROUS, connections=40, address_connections=20, silent=16)


@contextlib.contextmanager
def door(at: Place, limits, tls=None) -> Iterator[tuple[Caller, ssl.SSLContext | None]]:
    """Serve; yield somebody who trusts the door."""
    options = {} if tls is None else {"tls": tls}
    context = None if tls is None else ssl.create_default_context(cafile=tls.certificate)
    with served(at, limits, **options) as knock:
        yield Caller(knock.url, knock.tokens, context), context


@pytest.mark.parametrize("secure", [True, False], ids=["tls", "plain"])
@pytest.mark.parametrize("kind", KINDS)
def test_health_answers_beside_many_more_connections_than_there_are_places(at, tls, kind, secure) -> None:
    with door(at, SMALL, tls if secure else None) as (knock, context):
        crowd = []
        for _ in range(15):
            for _ in range(8):
                with contextlib.suppress(OSError):  # turned away
                    crowd.append(open_one(knock.address, kind, context))
            assert probe(knock.address, context) < WITHIN
        assert knock("POST", "/requests", "3", {"clients": [3]}).status == 202
        for peer in crowd:
            peer.close()


def test_silent_connections_have_a_few_seconds_and_the_oldest_makes_room_before(at, tls) -> None:
    limits = dataclasses.replace(GENEROUS, silent=3, silent_seconds=600)
    with door(at, limits, tls) as (knock, _):
        peers = [connect(knock) for _ in range(5)]
        assert [until_closed(peer) for peer in peers[:2]] == [b"", b""]
        for peer in peers[2:]:
            peer.settimeout(0.05)
            with pytest.raises(TimeoutError):
                peer.recv(1)
            peer.close()
        assert knock("GET", "/health").status == 200
    with door(at, dataclasses.replace(GENEROUS, silent_seconds=0.2), tls) as (knock, _):
        for begin in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
            with connect(knock) as peer:
                peer.sendall(begin)
                assert until_closed(peer) == b""


def closed_of(peers: list[socket.socket], number: int) -> int:
    """Wait until so many connections are closed, 20 s at most; return how many are."""
    until, closed = time.monotonic() + 20, 0
    with selectors.DefaultSelector() as ready:
        for peer in peers:
            ready.register(peer, selectors.EVENT_READ)
        while closed < number and time.monotonic() < until:
            for key, _ in ready.select(0.1):
                assert until_closed(key.fileobj) == b""
                ready.unregister(key.fileobj)
                closed += 1
    return closed


def test_who_is_being_answered_is_not_dismissed(at, monkeypatch) -> None:
    """The ledger takes its time for one; many more come and go meanwhile."""
    limits = dataclasses.replace(GENEROUS, connections=6, address_connections=4)
    ask, begun, goes_on = Intake.ask, threading.Event(), threading.Event()

    def slow(*args, **kwargs):
        begun.set()
        assert goes_on.wait(20)
        return ask(*args, **kwargs)

    monkeypatch.setattr(Intake, "ask", slow)
    with served(at, limits) as knock, connect(knock) as patient:
        token = knock.tokens["3"].encode()
        patient.sendall(
            b"POST /requests HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"
            b"Content-Length: 16\r\n\r\n{'clients': [3]}".replace(b"'", b'"')
            % token
        )
        assert begun.wait(20)
        crowd = [connect(knock) for _ in range(12)]
        for peer in crowd:
            with contextlib.suppress(OSError):
                peer.sendall(b"GET /")
        # In which order those are read that are there at once is the system's affair: all but three have to go.
        assert closed_of(crowd, 9) == 9, "dismissed by those that came later"
        goes_on.set()
        received = b""
        while b'"request_id"' not in received:
            received += patient.recv(65536) or pytest.fail("the door closed the connection")
        for peer in crowd:
            peer.close()


def test_one_host_that_is_answered_as_often_as_it_may_be_is_turned_away_and_let_in_again(at) -> None:
    limits = dataclasses.replace(GENEROUS, address_connections=5, head_seconds=600)
    with served(at, limits) as knock:
        peers = [connect(knock) for _ in range(5)]
        for peer in peers:  # kept open between two requests
            peer.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            assert peer.recv(10).startswith(b"HTTP")
        with connect(knock) as sixth:
            sixth.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            assert sixth.recv(10).startswith(b"HTTP"), "the one that rested longest made room"
        for peer in peers[1:]:
            peer.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            assert peer.recv(10)
            peer.close()
        assert b"HTTP" not in until_closed(peers[0]).split(b'"problems"')[-1]
        eventually(lambda: knock("GET", "/health").status == 200)


def test_a_door_out_of_file_descriptors_makes_room_and_goes_on(at, monkeypatch) -> None:
    with served(at, dataclasses.replace(GENEROUS, silent_seconds=600)) as knock:
        waiting = [connect(knock) for _ in range(3)]
        assert knock("GET", "/health").status == 200
        accept, left = socket.socket.accept, [2]

        def failing(self):
            if left[0]:
                left[0] -= 1
                raise OSError(24, "Too many open files")
            return accept(self)

        monkeypatch.setattr(socket.socket, "accept", failing)
        assert knock("GET", "/health").status == 200
        monkeypatch.undo()
        assert [until_closed(peer) for peer in waiting[:2]] == [b"", b""]
        left[0] = 3
        waiting[2].close()
        monkeypatch.setattr(socket.socket, "accept", failing)
        assert knock("GET", "/health").status == 200, "with nobody to dismiss it waits a moment"


def test_closing_the_door_lets_go_of_the_silent(at, tls) -> None:
    with door(at, dataclasses.replace(GENEROUS, silent_seconds=600), tls) as (knock, _):
        assert knock("GET", "/health").status == 200
        silent, begun = connect(knock), connect(knock)
        begun.sendall(b"\x16\x03\x01")
        assert knock("GET", "/health").status == 200
    assert [until_closed(peer) for peer in (silent, begun)] == [b"", b""]
