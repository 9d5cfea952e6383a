"""200 requests, 8 who ask at once, a server killed wherever it can die: nothing is lost, nothing done twice."""

import multiprocessing
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedunlearn import config
from fedunlearn.certificates.keys import new_key
from fedunlearn.certificates.verification import verify
from fedunlearn.requests import LIVE_BRANCH, Ledger
from fedunlearn.runs.checkpoints import Checkpoints, weights_hash
from fedunlearn.runs.directory import run_name
from fedunlearn.runs.metrics_log import read_metrics
from tests.e2e.live_server import AT_THE_END, EXPERIMENT, NUM_CLIENTS, POINTS, Point, live
from tests.e2e.posters import RIGHT_ENDS, Posted, jobs, post

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PROCESSES = multiprocessing.get_context("forkserver")
RANDOM_KILLS = 20
DEADLINE = 600.0
"""Seconds that anything may take at most."""


@pytest.fixture(scope="module", autouse=True)
def _preload() -> Iterator[None]:
    # Children fork from a server that has imported everything and run nothing: no seconds of imports each.
    PROCESSES.set_forkserver_preload(["tests.e2e.live_server", "tests.e2e.posters"])
    yield


class Lives:
    """The lives of one run's server, one after the other."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out / "runs" / run_name(config.loads(EXPERIMENT))
        out.mkdir(exist_ok=True)
        new_key(out / "signing.pem")

    def live(self, point: Point | None = None, n: int = 1, *, seconds: float | None = None) -> int:
        """Let a server live until a named instant, or for so many seconds once it serves; return its exit code."""
        serving = PROCESSES.Event()
        process = PROCESSES.Process(target=live, args=(str(self.out), point, n, serving))
        process.start()
        if seconds is not None:
            while not serving.wait(0.01) and process.is_alive():
                pass
            process.join(seconds)
            process.kill()
        process.join(DEADLINE)
        if process.exitcode is None:
            process.kill()
        assert process.exitcode is not None, f"{point}: the server neither died nor ended"
        return process.exitcode


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lives, list[Posted], Counter[str]]:
    """Return a run whose server was killed at every point and at random, and what was asked of it meanwhile."""
    lives = Lives(tmp_path_factory.mktemp("killed"))
    # Of who has not taken part there is nothing to forget: first everybody has.
    assert lives.live(("before", "the plan of an ordinary round is committed"), 15) == -signal.SIGKILL
    ledger_path = lives.folder / "requests.sqlite"
    with Ledger(ledger_path) as ledger:
        plans = ledger.plans(LIVE_BRANCH)
    assert {k for p in plans for k in p.plan["train"] if k not in p.failed} == set(range(NUM_CLIENTS))
    turns, results = PROCESSES.Semaphore(0), PROCESSES.Queue()
    lists = jobs()
    posters = [
        PROCESSES.Process(target=post, args=(str(ledger_path), number, mine, turns, results))
        for number, mine in enumerate(lists)
    ]
    for poster in posters:
        poster.start()
    draw = random.Random(1)
    deaths: list[Point | None] = [*POINTS, *[None] * RANDOM_KILLS]
    draw.shuffle(deaths)
    left = 200
    posted: list[Posted] = []
    kills: Counter[str] = Counter()
    within = 1.0
    with Ledger(ledger_path) as ledger:

        def open_up() -> None:
            """Let one after the other be posted until there is something to forget: a life must have its work."""
            nonlocal left
            while True:
                while len(posted) < 200 - left:
                    posted.append(results.get(timeout=DEADLINE))
                if ledger.requests(LIVE_BRANCH, ("received", "waiting")):
                    return
                assert left, "all has been asked for, and the server has not died often enough"
                turns.release()
                left -= 1

        for to_come, point in zip(range(len(deaths), 0, -1), deaths, strict=True):
            open_up()
            if left > 2.5 * to_come:  # not needed for the lives to come: these are asked while it serves
                turns.release(), turns.release()
                left -= 2
            if point is not None:
                assert lives.live(point) == -signal.SIGKILL, f"{point}: was never reached"
                kills["at a named point"] += 1
                continue
            while lives.live(seconds=draw.uniform(0.0, within)) != -signal.SIGKILL:
                within /= 2  # it was done before: this machine is quick
                open_up()
            kills["at random"] += 1
    for _ in range(left):
        turns.release()
    for poster in posters:
        poster.join(DEADLINE)
        assert poster.exitcode == 0
    while len(posted) < 200:
        posted.append(results.get(timeout=DEADLINE))
    for point in AT_THE_END:
        assert lives.live(point) == -signal.SIGKILL, f"{point}: was never reached"
        kills["at a named point"] += 1
    assert lives.live() == 0
    return lives, posted, kills


def test_it_was_killed_often_enough(killed: Any) -> None:
    _, posted, kills = killed
    assert kills["at a named point"] == len(POINTS) + len(AT_THE_END)
    assert kills["at random"] == RANDOM_KILLS
    fates = Counter(p.fate for p in posted)
    assert sum(fates.values()) == 200
    assert fates["valid"] == 160


def test_every_request_is_in_its_right_end_state(killed: Any) -> None:
    lives, posted, _ = killed
    with Ledger(lives.folder / "requests.sqlite") as ledger:
        records = {r.id: r for r in ledger.requests(LIVE_BRANCH)}
        trail = [(e.request_id, e.round, e.to_state, e.detail) for e in ledger.audit(LIVE_BRANCH)]
    asked = {p.request: p for p in posted if p.request is not None}
    assert records.keys() == asked.keys(), "none lost, none made up"
    wrong = {
        p: [entry for entry in trail if entry[0] == id_]
        for id_, p in asked.items()
        if records[id_].state not in RIGHT_ENDS[p.fate]
    }
    assert wrong == {}
    assert all(p.fate == "invalid" for p in posted if p.request is None)


def test_nobody_is_forgotten_twice(killed: Any) -> None:
    lives, posted, _ = killed
    with Ledger(lives.folder / "requests.sqlite") as ledger:
        records = {r.id: r for r in ledger.requests(LIVE_BRANCH)}
        plans = {p.round: p.plan for p in ledger.plans(LIVE_BRANCH)}
        entries = Counter((e.request_id, e.to_state) for e in ledger.audit(LIVE_BRANCH))
    forgotten = Counter(
        client
        for round, plan in plans.items()
        if any(records[id_].unlearned_round == round for id_ in plan["requests"])
        for client in plan["forget"]
    )
    expected = {k for p in posted if p.fate in ("valid", "too late") for k in p.clients}
    assert forgotten == dict.fromkeys(expected, 1)
    assert {entries[p.request, "recovering"] for p in posted if p.fate == "valid"} == {1}


def test_whoever_asked_never_trains_again(killed: Any) -> None:
    lives, *_ = killed
    with Ledger(lives.folder / "requests.sqlite") as ledger:
        plans = {p.round: p.plan for p in ledger.plans(LIVE_BRANCH)}
        records = [r for r in ledger.requests(LIVE_BRANCH) if r.unlearned_round is not None]
    for record in records:
        for round in range(record.unlearned_round, max(plans) + 1):
            assert set(plans[round]["train"]).isdisjoint(record.clients)


def test_the_trail_is_whole_and_every_end_is_certified(killed: Any) -> None:
    lives, posted, _ = killed
    with Ledger(lives.folder / "requests.sqlite") as ledger:
        assert ledger.check_trail(LIVE_BRANCH, head=ledger.head(LIVE_BRANCH)) == []
        assert len(ledger.signed_heads(LIVE_BRANCH)) > 10
        servers = ledger.servers(LIVE_BRANCH)
    assert len({s.holder for s in servers}) > len(POINTS)
    assert [finding.text for finding in verify(lives.folder) if finding.holds is False] == []
    certified = {p.stem for p in (lives.folder / "certificates").glob("*.json")}
    assert certified >= {p.request for p in posted if p.request is not None}


def test_the_record_alone_ends_in_the_same_weights(killed: Any, tmp_path: Path) -> None:
    """A new run directory, whose ledger is loaded from the other's export, and a server that nobody kills."""
    lives, *_ = killed
    again = Lives(tmp_path / "again")
    again.folder.mkdir(parents=True)
    with Ledger(lives.folder / "requests.sqlite") as ledger, Ledger(again.folder / "requests.sqlite") as copy:
        copy.load(LIVE_BRANCH, ledger.export(LIVE_BRANCH))
    assert again.live() == 0
    one, other = (Checkpoints(x.folder / "checkpoints", LIVE_BRANCH).latest() for x in (lives, again))
    assert one is not None and other is not None
    assert one.round == other.round
    assert weights_hash(one.vector, one.buffers) == weights_hash(other.vector, other.buffers)
    assert one.meta == other.meta
    # And so does every round on the way, as far as its measures tell; of a repeated round the last line counts.
    assert _measures(lives.folder) == _measures(again.folder)


def _measures(folder: Path) -> dict[Any, float]:
    lines = read_metrics(folder / "metrics.jsonl")
    return {m.address: m.value for m in lines if m.metric != "seconds"}
