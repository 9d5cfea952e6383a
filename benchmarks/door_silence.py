"""Whether the door answers while others hold connections to it and say nothing, or nothing sensible.

::

    python -m benchmarks.door_silence                  # 2 000 connections of each kind to a door with TLS
    python -m benchmarks.door_silence --plain          # without TLS
    python -m benchmarks.door_silence --kind silent --connections 500

The door is a process of its own. One prober asks /health, each time on a new connection and 20 times a second, from
before the first of the other connections is opened until they have been held for a while; all come from one address.
Every answer must be 200 and there within a second, or the command fails.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import http.client
import ipaddress
import json
import resource
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.door import opened, prepared
from benchmarks.machine import in_words, machine
from fedunlearn.roster import Roster

KINDS = ("silent", "byte", "garbage", "half-closed", "head", "body")
"""What the other connections do: nothing; send a byte; send what is no TLS and no HTTP; say goodbye at once; begin,
after the handshake, a head, or a body for /health, and leave it at that."""
WITHIN = 1.0
HOLD_SECONDS = 3.0
PROBE_SECONDS = 0.05


@dataclass(frozen=True)
class Figures:
    """What the prober saw beside so many connections of one kind; seconds."""

    kind: str
    tls: bool
    connections: int
    probes: int
    failed: int
    p95: float
    worst: float


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate of its own signing for 127.0.0.1, and its key; return their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "door")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
        .add_extension(address, False)
        .sign(key, hashes.SHA256())
    )
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "tls.crt").write_bytes(signed.public_bytes(pem))
    (folder / "tls.key").write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    return folder / "tls.crt", folder / "tls.key"


def open_one(address: tuple[str, int], kind: str, context: ssl.SSLContext | None) -> socket.socket:
    """Open a connection that does what its kind does, and return it as it is left."""
    peer = socket.create_connection(address, timeout=5)
    if kind in ("head", "body") and context is not None:
        peer = context.wrap_socket(peer, server_hostname=address[0])
    said = {
        "byte": b"\x16",
        "garbage": b"\x00\xff" * 40,
        "head": b"GET /health HTTP/1.1\r\nHost: a\r\n",
        "body": b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{",
    }
    if kind in said:
        peer.sendall(said[kind])
    if kind == "half-closed":
        peer.shutdown(socket.SHUT_WR)
    return peer


def probe(address: tuple[str, int], context: ssl.SSLContext | None) -> float:
    """Ask /health on a new connection; return the seconds, infinite where no 200 comes."""
    begun = time.perf_counter()
    connection = (
        http.client.HTTPConnection(*address, timeout=10 * WITHIN)
        if context is None
        else http.client.HTTPSConnection(*address, timeout=10 * WITHIN, context=context)
    )
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        answer.read()
        return time.perf_counter() - begun if answer.status == 200 else float("inf")
    except OSError:
        return float("inf")
    finally:
        connection.close()


def hold(
    address: tuple[str, int],
    kind: str,
    number: int,
    context: ssl.SSLContext | None,
    seconds: float | None = None,
) -> Figures:
    """Open so many connections of a kind, hold them, and return what the prober saw meanwhile."""
    found: list[float] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set() or len(found) < 2:
            found.append(probe(address, context))
            done.wait(PROBE_SECONDS)

    prober = threading.Thread(target=ask)
    prober.start()
    peers = []
    try:
        for _ in range(number):
            with contextlib.suppress(OSError):  # turned away, or dismissed already
                peers.append(open_one(address, kind, context))
        time.sleep(HOLD_SECONDS if seconds is None else seconds)
    finally:
        done.set()
        prober.join()
        for peer in peers:
            peer.close()
    late = sorted(found)
    failed = sum(one > WITHIN for one in found)
    return Figures(
        kind, context is not None, number, len(found), failed, late[int(0.95 * len(late))], late[-1]
    )


def _allow_files(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed if hard < 0 else min(needed, hard), hard))


def measure(folder: Path, kinds: Sequence[str], number: int, *, plain: bool = False) -> list[Figures]:
    """Hold connections of each kind in turn to a door of its own."""
    run, roster = prepared(folder, 10, Roster())
    context, options = None, ["--insecure-loopback"]
    if not plain:
        cert, key = certificate(folder)
        context = ssl.create_default_context(cafile=cert)
        options = ["--tls-cert", str(cert), "--tls-key", str(key)]
    with opened(run, roster, [*options, "--address-rate", "1e6"]) as (host, port, _):
        probe((host, port), context)
        _allow_files(number + 200)  # in this process; the door keeps the limit that it was started with
        return [hold((host, port), kind, number, context) for kind in kinds]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.door_silence", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--kind", choices=KINDS, action="append", help="repeatable; default: all")
    parser.add_argument("--plain", action="store_true", help="without TLS")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="door-") as folder:
        found = measure(Path(folder), chosen.kind or KINDS, chosen.connections, plain=chosen.plain)
    print("kind         connections  probes  failed  p95 ms  worst ms")
    for one in found:
        times = f"{1000 * one.p95:6.0f}  {1000 * one.worst:8.0f}"
        print(f"{one.kind:11}  {one.connections:11}  {one.probes:6}  {one.failed:6}  {times}")
    print(in_words(machine()))
    if chosen.json is not None:
        document = {"machine": machine(), "figures": [asdict(one) for one in found]}
        chosen.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if any(one.failed for one in found):
        raise SystemExit(f"/health failed, or took longer than {WITHIN:g} s")


if __name__ == "__main__":
    main()
