"""How quickly the door takes requests: throughput and the 95th percentile under concurrent posters.

::

    python -m benchmarks.door                    # 50 posters, 5 000 requests, one connection each
    python -m benchmarks.door --folder /mnt/ssd  # the ledger on another disk

The door is a process of its own, as in production, with a new ledger; every request is for another client and carries
an Idempotency-Key, and every 202 stands for a commit that is on the disk (``synchronous=FULL``). The posters are
threads of one process beside it, so that their time is in the figures. One poster alone is measured first: its median
is what a commit costs on this disk.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.machine import in_words, machine
from fedunlearn.requests import LIVE_BRANCH, Ledger
from fedunlearn.roster import Roster, StaffEntry, new_token, token_hash
from fedunlearn.roster_file import edit

EXPERIMENT = """
name = "door"
data = {{source = "synthetic-images"}}
federation = {{num-clients = {clients}}}
model = {{name = "mlp"}}
train = {{rounds = 1, lr = 0.1}}
method = [{{name = "puf"}}]
recover = {{until = "reference-accuracy", max-rounds = 1}}
requests = {{}}
"""
ALONE = 200
"""Requests of the one poster that goes first."""


@dataclass(frozen=True)
class Figures:
    """What a number of posters saw.

    Attributes
    ----------
    per_second : float
        Requests taken per second, over the time from the first to the last answer.
    p50, p95, p99 : float
        Milliseconds from the first byte sent to the last received.
    """

    posters: int
    requests: int
    per_second: float
    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, posters: int, seconds: float, latencies: Sequence[float]) -> Figures:
        """Return the figures of latencies in seconds."""
        cuts = statistics.quantiles(latencies, n=100, method="inclusive")
        p50, p95, p99 = (round(1000 * cuts[percent - 1], 2) for percent in (50, 95, 99))
        return cls(posters, len(latencies), round(len(latencies) / seconds, 1), p50, p95, p99)


@contextmanager
def door(folder: Path, *, clients: int, tokens: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Open a door over a new run directory of so many clients; yield its address."""
    staff = [StaffEntry(name=f"poster{n}", token_sha256=token_hash(token)) for n, token in enumerate(tokens)]
    run, roster = prepared(folder, clients, Roster(operators=tuple(staff)))
    options = ["--insecure-loopback", "--token-rate", "1e6", "--address-rate", "1e6"]
    with opened(run, roster, options) as (host, port, _):
        yield host, port


def prepared(folder: Path, clients: int, roster: Roster) -> tuple[Path, Path]:
    """Make a run directory of so many clients and the roster's file beside it; return their paths."""
    run, file = folder / "run", folder / "roster.toml"
    run.mkdir()
    (run / "experiment.toml").write_text(EXPERIMENT.format(clients=clients), encoding="utf-8")
    edit(file, lambda _: roster, new=True)
    return run, file


@contextmanager
def opened(run: Path, roster: Path, options: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Open a door in a process of its own; yield its host, its port and the process's id."""
    words = [sys.executable, "-m", "fedunlearn.cli", "door", str(run), "--roster", str(roster), "--port", "0"]
    log = (run.parent / "door.log").open("w", encoding="utf-8")
    with log, subprocess.Popen([*words, *options], stdout=subprocess.PIPE, stderr=log, text=True) as process:
        try:
            assert process.stdout is not None
            parts = urlsplit(process.stdout.readline().removeprefix("door: ").strip())
            if parts.hostname is None or parts.port is None:
                raise SystemExit(
                    f"the door did not open: {(run.parent / 'door.log').read_text(encoding='utf-8')}"
                )
            yield parts.hostname, parts.port, process.pid
        finally:
            process.terminate()


def post(address: tuple[str, int], token: str, clients: Sequence[int]) -> list[float]:
    """Ask for one client after another on one connection; return the seconds each took."""
    connection = http.client.HTTPConnection(*address, timeout=60)
    latencies = []
    for client in clients:
        body = json.dumps({"clients": [client]})
        headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Idempotency-Key": f"key-{client}",
        }
        begun = time.perf_counter()
        connection.request("POST", "/requests", body, headers)
        answer = connection.getresponse()
        document = answer.read()
        latencies.append(time.perf_counter() - begun)
        if answer.status != 202:
            raise SystemExit(f"client {client}: {answer.status} {document.decode()}")
    connection.close()
    return latencies


def together(address: tuple[str, int], tokens: Sequence[str], clients: Sequence[int]) -> Figures:
    """Share the clients out to one poster per token, let all begin at once, and return what they saw."""
    latencies: list[list[float]] = [[] for _ in tokens]
    start = threading.Barrier(len(tokens) + 1)

    def run(number: int) -> None:
        start.wait()
        latencies[number] = post(address, tokens[number], clients[number :: len(tokens)])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(tokens))]
    for thread in threads:
        thread.start()
    start.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    found = [one for part in latencies for one in part]
    if len(found) != len(clients):
        raise SystemExit(f"{len(found)} of {len(clients)} requests were answered")
    return Figures.of(len(tokens), seconds, found)


def measure(folder: Path, *, posters: int, requests: int) -> list[Figures]:
    """Measure one poster alone, then `posters` together, and check that the ledger holds every request once."""
    tokens = [new_token() for _ in range(posters)]
    with door(folder, clients=ALONE + requests, tokens=tokens) as address:
        alone = together(address, tokens[:1], range(ALONE))
        crowd = together(address, tokens, range(ALONE, ALONE + requests))
    with Ledger(folder / "run" / "requests.sqlite") as ledger:
        clients = sorted(record.clients for record in ledger.requests(LIVE_BRANCH))
        if clients != [(client,) for client in range(ALONE + requests)] or ledger.check_trail(LIVE_BRANCH):
            raise SystemExit("the ledger does not hold what was acknowledged")
    return [alone, crowd]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.door", description=__doc__.partition("\n")[0])
    parser.add_argument("--posters", type=int, default=50)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to measure; default: here")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="door-", dir=chosen.folder) as folder:
        found = measure(Path(folder), posters=chosen.posters, requests=chosen.requests)
    print("posters  requests  requests/s  p50 ms  p95 ms  p99 ms")
    for one in found:
        line = f"{one.posters:7}  {one.requests:8}  {one.per_second:10.0f}"
        print(f"{line}  {one.p50:6.1f}  {one.p95:6.1f}  {one.p99:6.1f}")
    print(in_words(machine()))
    if chosen.json is not None:
        document = {"machine": machine(), "figures": [asdict(one) for one in found]}
        chosen.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
