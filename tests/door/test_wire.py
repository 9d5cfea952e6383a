"""Connections of peers that are slow, greedy, broken or hostile, at the level of bytes; and TLS."""

import dataclasses
import datetime
import ipaddress
import random
import socket
import ssl
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedunlearn.deployment.roster_file import RosterFile
from fedunlearn.door import protocol
from fedunlearn.door.serve import DoorServer, Tls, listen
from fedunlearn.errors import UserError
from tests.door.served import GENEROUS, Caller, served

IMPATIENT = dataclasses.replace(GENEROUS, head_seconds=0.3, silent_seconds=0.3)


def connect(knock: Caller) -> socket.socket:
    return socket.create_connection(knock.address, timeout=20)


def until_closed(peer: socket.socket) -> bytes:
    received = b""
    try:
        while chunk := peer.recv(65536):
            received += chunk
    except ConnectionError:
        pass
    return received


@pytest.mark.parametrize("begin", [b"", b"GET", b"GET /health HTTP/1.1\r\nHost: a\r\n"])
def test_a_head_that_does_not_come_closes_the_connection(at, begin) -> None:
    with served(at, IMPATIENT) as knock, connect(knock) as peer:
        peer.sendall(begin)
        assert until_closed(peer) == b""


def test_a_head_that_comes_byte_by_byte_closes_the_connection_all_the_same(at) -> None:
    with served(at, IMPATIENT) as knock, connect(knock) as peer:
        begun = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() < begun + 20:
                peer.sendall(b"a")
                time.sleep(0.01)
        assert time.monotonic() < begun + 10


def test_a_connection_is_good_for_many_requests_and_each_has_its_time(at) -> None:
    with served(at, IMPATIENT) as knock, connect(knock) as peer:
        begun, sent, received = time.monotonic(), 0, b""
        while time.monotonic() < begun + 0.8 or sent < 4:  # longer than one head may take
            more = 1 if sent else 3  # the first all at once
            peer.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n" * more)
            sent += more
            while received.count(b'"problems"') < sent:
                received += peer.recv(65536) or pytest.fail("the door closed the connection")
        assert received.count(b"HTTP/1.1 200 ") == sent


@pytest.mark.parametrize(
    "bytes_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/9.9\r\nHost: a\r\n\r\n",
        b"POST /requests HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /requests HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nBad Header: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    ],
)
def test_what_is_no_http_is_400_in_the_shape_of_all_refusals(knock, bytes_) -> None:
    with connect(knock) as peer:
        peer.sendall(bytes_)
        peer.shutdown(socket.SHUT_WR)
        received = until_closed(peer)
    assert received == b"" or (received.startswith(b"HTTP/1.1 400 ") and b'{"error": ' in received)
    assert knock("GET", "/health").status == 200


@pytest.mark.parametrize("end", [b"\r\n\r\n", b""], ids=["whole", "unfinished"])
@pytest.mark.parametrize("head", [b"GET /%s HTTP/1.1\r\nHost: a", b"GET / HTTP/1.1\r\nHost: a\r\nX: %s"])
def test_a_head_that_is_too_long_is_431(knock, head, end) -> None:
    """The parser bounds only what it has to wait for, the gate what comes at once."""
    with connect(knock) as peer:
        peer.sendall(head % (b"a" * 20_000) + end)
        received = until_closed(peer)
    assert received.startswith(b"HTTP/1.1 431 ")
    assert (
        b'{"error": "a request\'s first line and headers may have at most 16384 bytes"}'
        in received.replace(b'"error":"', b'"error": "')
    )


def test_chunks_and_length_at_once_are_refused_or_read_as_chunks_only(knock) -> None:
    """Read differently by a proxy in front, they would smuggle a second request past it."""
    token = knock.tokens["3"].encode()
    with connect(knock) as peer:
        peer.sendall(
            b"POST /requests HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Length: 4\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % token
        )
        peer.shutdown(socket.SHUT_WR)
        received = until_closed(peer)
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 422 "))


def test_random_bytes_never_stop_the_door(knock) -> None:
    draw = random.Random(5)
    whole = b"POST /requests HTTP/1.1\r\nHost: a\r\nContent-Length: 16\r\n\r\n{'clients': [3]}"
    for _ in range(300):
        sent = bytearray(whole)
        for _ in range(draw.randrange(1, 8)):
            sent[draw.randrange(len(sent))] = draw.randrange(256)
        with connect(knock) as peer:
            peer.sendall(sent[: draw.randrange(1, len(sent) + 1)])
            peer.shutdown(socket.SHUT_WR)
            received = until_closed(peer)
        assert not received.startswith(b"HTTP/1.1 5"), (bytes(sent), received)
    assert knock("GET", "/health").json["status"] == "ok"


def test_a_peer_that_does_not_read_is_dropped(at, monkeypatch) -> None:
    monkeypatch.setattr(protocol, "_UNREAD_SECONDS", 0.3)
    with served(at) as knock, socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.settimeout(20)
        peer.connect(knock.address)
        with pytest.raises(ConnectionError):
            while True:  # the page is some kilobytes: the answers pile up in the door until it has had enough
                peer.sendall(b"GET /docs HTTP/1.1\r\nHost: a\r\n\r\n" * 50)


def test_websockets_are_not_spoken(knock) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "a" * 24}
    assert knock("GET", "/requests", "alice", headers=headers).status == 200


# -- TLS and addresses ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls(tmp_path_factory) -> Tls:
    """A certificate of its own signing for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "door")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    plain, pkcs8 = serialization.NoEncryption(), serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, plain))
    locked = serialization.BestAvailableEncryption(b"secret")
    (folder / "locked.pem").write_bytes(key.private_bytes(pem, pkcs8, locked))
    other = ec.generate_private_key(ec.SECP256R1())
    (folder / "other.pem").write_bytes(other.private_bytes(pem, pkcs8, plain))
    return Tls(folder / "cert.pem", folder / "key.pem")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_over_tls_a_request_is_taken_and_plain_http_is_not_spoken(at, tls) -> None:
    with served(at, tls=tls) as knock:
        trusting = Caller(knock.url, knock.tokens, ssl.create_default_context(cafile=tls.certificate))
        answer = trusting("POST", "/requests", "3", {"clients": [3]})
        assert answer.status == 202
        assert answer.headers["Strict-Transport-Security"]
        with pytest.raises(ssl.SSLCertVerificationError):
            Caller(knock.url, knock.tokens, ssl.create_default_context())("GET", "/health")
        with connect(knock) as peer:
            peer.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"HTTP" not in until_closed(peer)
        old = ssl.create_default_context(cafile=tls.certificate)
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            Caller(knock.url, knock.tokens, old)("GET", "/health")


@pytest.mark.parametrize(
    ("cert", "key"), [("cert", "other"), ("cert", "locked"), ("key", "key"), ("cert", "none")]
)
def test_a_certificate_that_will_not_do_is_refused_at_once(at, tls, cert, key) -> None:
    folder = tls.certificate.parent
    with pytest.raises(UserError, match=f"{key}.pem"):
        Tls(folder / f"{cert}.pem", folder / f"{key}.pem").context()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_without_tls_nobody_else_can_reach_the_door(at, host) -> None:
    with pytest.raises(UserError, match="--tls-cert"):
        DoorServer(at.folder, RosterFile(at.roster), host=host, port=0)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.9.9.9"])
def test_loopback_addresses_do_without(host) -> None:
    listen(host, 0, loopback_only=True).close()


def test_connections_are_listened_for_though_the_system_names_datagrams_first(monkeypatch) -> None:
    def known(host, port, family=0, type=0, proto=0, flags=0):
        kinds = (socket.SOCK_DGRAM, socket.SOCK_STREAM)
        return [(socket.AF_INET, kind, 0, "", (host, port)) for kind in kinds if type in (0, kind)]

    monkeypatch.setattr(socket, "getaddrinfo", known)
    with listen("127.0.0.1", 0, loopback_only=True) as listener:
        assert listener.type == socket.SOCK_STREAM


def test_an_address_that_is_taken_or_unknown_is_refused(at) -> None:
    with listen("127.0.0.1", 0, loopback_only=True) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=str(port)):
            listen("127.0.0.1", port, loopback_only=True)
    for host in ("", "192.0.2.1", "no.such.host.invalid", "a" * 300):
        with pytest.raises(UserError, match="--host"):
            listen(host, 0, loopback_only=False)
    with pytest.raises(UserError, match="no such folder"):
        DoorServer(at.folder / "typo", RosterFile(at.roster))
