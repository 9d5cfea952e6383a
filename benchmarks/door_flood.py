"""What one client that asks without end costs the server, and another client that asks beside it.

::

    python -m benchmarks.door_flood                    # 6 400 identical requests, a minute
    python -m benchmarks.door_flood --requests 640

A live federation and its door are processes of their own. The federation has had its rounds and only waits, so that
what its process is busy with (its CPU time from the first request to its end) is the requests: forgetting, recovery
and certificates included. One client asks to be forgotten again and again, as fast as its rate limit allows, each
time anew (without an Idempotency-Key); beside it others ask for themselves, once each. The command fails where the
95th percentile of their receipts is over a second, or the server is busy for more than two.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.door import opened
from benchmarks.machine import in_words, machine
from fedunlearn.deployment.roster import ClientEntry, Roster, new_token, token_hash
from fedunlearn.deployment.roster_file import edit
from fedunlearn.requests import LIVE_BRANCH, Intake, Ledger

EXPERIMENT = """
name = "flood"
data = {{source = "digits"}}
federation = {{num-clients = {clients}}}
model = {{name = "mlp"}}
train = {{rounds = {rounds}, lr = 0.1}}
method = [{{name = "puf"}}]
recover = {{until = "max-rounds", max-rounds = 2}}
requests = {{window = {window}}}
engine = {{workers = 1}}
"""
RECEIPT_SECONDS, BUSY_SECONDS = 1.0, 2.0
RATE = 300.0
"""Requests a second of the one client: what the door is told to allow, and what it sends."""
WINDOW = 8
"""Seconds for which the federation collects requests before it serves them together."""
ROUNDS = 1000
"""So many that the door is up before they are over, and the request for which the federation then waits is there."""
SENDERS = 4
KEEPER, GREEDY, FIRST_OTHER = 0, 1, 2


@dataclass(frozen=True)
class Figures:
    """What came of it; seconds.

    Attributes
    ----------
    answers : dict
        Status → how often the one client got it.
    recorded : int
        Its requests in the ledger.
    others : int
        Requests of other clients, each granted.
    p50, p95, worst : float
        Of their receipts.
    busy : float
        CPU time of the server's process from the first request to its end.
    """

    requests: int
    answers: dict[int, int]
    recorded: int
    others: int
    p50: float
    p95: float
    worst: float
    busy: float


class Client:
    """One client on one connection."""

    def __init__(self, address: tuple[str, int], number: int, token: str) -> None:
        self._connection = http.client.HTTPConnection(*address, timeout=60)
        self._body = json.dumps({"clients": [number]})
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def ask(self) -> tuple[int, float]:
        """Ask to be forgotten; return the status and the seconds until the receipt."""
        begun = time.perf_counter()
        self._connection.request("POST", "/requests", self._body, self._headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status, time.perf_counter() - begun


@contextmanager
def served(folder: Path, clients: int, window: float) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """Run a live federation; yield its run directory and its process while it has its rounds."""
    file = folder / "flood.toml"
    file.write_text(EXPERIMENT.format(clients=clients, window=window, rounds=ROUNDS), encoding="utf-8")
    words = [sys.executable, "-m", "fedunlearn.cli", "run", str(file), "--out", str(folder / "runs")]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        yield _after_round(folder, 0, process).parent.parent, process
    finally:
        process.kill()


def keep_waiting(folder: Path, run: Path, clients: int, process: subprocess.Popen[bytes]) -> None:
    """Return once the federation has had its rounds and waits, for the window of a request, instead of ending."""
    _after_round(
        folder, ROUNDS - 40, process
    )  # late enough for the window not to be over when the rounds are
    with Ledger(run / "requests.sqlite") as ledger:
        Intake(ledger, num_clients=clients).ask([KEEPER], source="cli", actor="operator:local")
    _after_round(folder, ROUNDS, process)


def _after_round(folder: Path, round: int, process: subprocess.Popen[bytes]) -> Path:
    """Wait for the checkpoint of a round, or for a later one, and return its path."""
    while True:
        found = _found(folder, f"runs/*/checkpoints/{LIVE_BRANCH}-r*.safetensors", process)
        latest = max(found.parent.glob(f"{LIVE_BRANCH}-r*.safetensors"), default=found)
        if int(latest.stem.rpartition("-r")[2]) >= round:
            return latest
        time.sleep(0.02)


def _found(folder: Path, pattern: str, process: subprocess.Popen[bytes]) -> Path:
    """Wait for a file that the server writes, and return it."""
    deadline = time.monotonic() + 120
    while (found := next(folder.glob(pattern), None)) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(
                f"no live federation: {(folder / 'server.log').read_text(errors='replace', encoding='utf-8')}"
            )
        time.sleep(0.02)
    return found


def flood(address: tuple[str, int], tokens: Sequence[str], requests: int) -> tuple[Counter[int], list[float]]:
    """Have the one client send its requests, and each other client one meanwhile.

    Returns
    -------
    answers, receipts
        Status → how often the one client got it; seconds until the others' receipts.
    """
    answers: list[int] = []
    receipts: list[float] = []
    begun, seconds = time.monotonic(), requests / RATE

    def send(first: int) -> None:
        client = Client(address, GREEDY, tokens[GREEDY])
        for number in range(first, requests, SENDERS):
            time.sleep(max(0.0, begun + number / RATE - time.monotonic()))
            answers.append(client.ask()[0])

    def others() -> None:
        for place, number in enumerate(range(FIRST_OTHER, len(tokens)), 1):
            time.sleep(max(0.0, begun + place * seconds / (len(tokens) - 1) - time.monotonic()))
            status, taken = Client(address, number, tokens[number]).ask()
            if status != 202:
                raise SystemExit(f"client {number}: {status}")
            receipts.append(taken)

    threads = [threading.Thread(target=send, args=(first,)) for first in range(SENDERS)]
    threads.append(threading.Thread(target=others))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Counter(answers), receipts


def measure(folder: Path, *, requests: int, others: int, window: float = WINDOW) -> Figures:
    """Measure it once, and check that the ledger holds together afterwards."""
    clients = FIRST_OTHER + others + 2  # some are left to train
    tokens = [new_token() for _ in range(FIRST_OTHER + others)]
    entries = [ClientEntry(number=n, token_sha256=token_hash(token)) for n, token in enumerate(tokens)]
    edit(folder / "roster.toml", lambda _: Roster(tuple(entries)), new=True)
    options = ["--insecure-loopback", "--token-rate", str(RATE + 20), "--address-rate", "1e6"]
    with served(folder, clients, window) as (run, process):
        with opened(run, folder / "roster.toml", options) as (
            host,
            port,
            _,
        ):  # before anybody waits: it takes seconds
            keep_waiting(folder, run, clients, process)
            before = _cpu_of(process.pid)
            answers, receipts = flood((host, port), tokens, requests)
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode or len(receipts) != others:
            raise SystemExit(f"the server ended with {process.returncode}: see {folder / 'server.log'}")
    with Ledger(run / "requests.sqlite") as ledger:
        records = ledger.requests(LIVE_BRANCH)
        if ledger.check_trail(LIVE_BRANCH) or not all(record.ended for record in records):
            raise SystemExit("the ledger does not hold together, or a request is still open")
    cuts = statistics.quantiles(receipts, n=100, method="inclusive")
    return Figures(
        requests,
        dict(answers),
        sum(record.clients == (GREEDY,) for record in records),
        others,
        *(round(value, 4) for value in (cuts[49], cuts[94], max(receipts))),
        round(used.ru_utime + used.ru_stime - before, 2),
    )


def _cpu_of(pid: int) -> float:
    """Return the CPU seconds that a process has used so far, from /proc."""
    fields = (
        Path(f"/proc/{pid}/stat").read_text(errors="replace", encoding="utf-8").rpartition(")")[2].split()
    )
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.door_flood", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--requests", type=int, default=6400)
    parser.add_argument("--others", type=int, default=30)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="door-") as folder:
        found = measure(Path(folder), requests=chosen.requests, others=chosen.others)
    told = ", ".join(f"{number} × {status}" for status, number in sorted(found.answers.items()))
    print(f"one client   {found.requests} requests: {told}; {found.recorded} recorded")
    receipts = ", ".join(
        f"{name} {1000 * value:.0f} ms"
        for name, value in (("p50", found.p50), ("p95", found.p95), ("worst", found.worst))
    )
    print(f"{found.others} others    receipts: {receipts}")
    print(f"the server   was busy for {found.busy:.2f} s")
    print(in_words(machine()))
    if chosen.json is not None:
        document = {"machine": machine(), "figures": asdict(found)}
        chosen.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if found.p95 > RECEIPT_SECONDS or found.busy > BUSY_SECONDS:
        raise SystemExit(
            f"more than {RECEIPT_SECONDS:g} s for a receipt (p95), or {BUSY_SECONDS:g} s of the server"
        )


if __name__ == "__main__":
    main()
