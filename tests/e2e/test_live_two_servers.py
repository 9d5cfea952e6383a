"""Two servers on one run: one goes on, the other stops itself, and nothing is written twice."""

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedunlearn.requests import LIVE_BRANCH, Ledger
from fedunlearn.runs.checkpoints import Checkpoints, weights_hash
from tests.e2e.live_server import REPLACED, TURNED_AWAY, compete

PROCESSES = multiprocessing.get_context("forkserver")
DEADLINE = 300.0
HANGS_BEFORE = ["an ordinary round is trained", "the model is measured", "the forgotten are told"]
"""Outside of every transaction: one that stops dead within one keeps the file locked, and nobody can take over."""


@pytest.fixture(scope="module", autouse=True)
def _preload() -> Iterator[None]:
    PROCESSES.set_forkserver_preload(["tests.e2e.live_server"])
    yield


class Server:
    """A server in a process of its own."""

    def __init__(
        self, folder: Path, name: str, hang: str = "", *, renews: bool = True, patience: float = 60.0
    ) -> None:
        self.hanging, self.go_on = PROCESSES.Event(), PROCESSES.Event()
        arguments = (str(folder), name, hang, renews, patience, self.hanging, self.go_on)
        self.process = PROCESSES.Process(target=compete, args=arguments)
        self.process.start()

    def end(self) -> int:
        """Wait for its end, and return its exit code."""
        self.process.join(DEADLINE)
        if self.process.exitcode is None:
            self.process.kill()
        assert self.process.exitcode is not None, "it neither ended nor stopped itself"
        return int(self.process.exitcode)


def reported(folder: Path) -> dict[int, list[str]]:
    """Return who reported each round."""
    rounds: dict[int, list[str]] = {}
    for line in (folder / "reported.txt").read_text().splitlines():
        round, name = line.split()
        rounds.setdefault(int(round), []).append(name)
    return rounds


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the hash of the weights that one server on its own ends with."""
    folder = tmp_path_factory.mktemp("alone")
    assert Server(folder, "alone").end() == 0
    return final(folder)


def final(folder: Path) -> str:
    latest = Checkpoints(folder / "checkpoints", LIVE_BRANCH).latest()
    assert latest is not None
    assert latest.round == 8
    return weights_hash(latest.vector, latest.buffers)


@pytest.mark.quick(hang=1)
@pytest.mark.parametrize("hang", HANGS_BEFORE)
def test_one_that_was_cut_off_stops_itself_when_it_comes_back(tmp_path: Path, alone: str, hang: str) -> None:
    first = Server(tmp_path, "first", hang, renews=False)
    assert first.hanging.wait(DEADLINE)
    assert Server(tmp_path, "second").end() == 0
    files = {p.name: p.read_bytes() for p in (tmp_path / "checkpoints").iterdir()}
    first.go_on.set()
    assert first.end() == REPLACED
    assert {
        p.name: p.read_bytes() for p in (tmp_path / "checkpoints").iterdir() if p.suffix != ".tmp"
    } == files
    assert final(tmp_path) == alone
    rounds = reported(tmp_path)
    assert list(rounds) == list(range(9))
    assert all(len(who) == 1 for who in rounds.values()), "each round is reported once"
    assert rounds[1] == ["first"]
    assert rounds[8] == ["second"]
    with Ledger(tmp_path / "requests.sqlite") as ledger:
        assert [s.holder for s in ledger.servers(LIVE_BRANCH)] == ["first", "second"]


def test_one_that_comes_second_is_turned_away(tmp_path: Path, alone: str) -> None:
    """However long a round of the first one takes: its lease is renewed meanwhile."""
    first = Server(tmp_path, "first", HANGS_BEFORE[0])
    assert first.hanging.wait(DEADLINE)
    assert Server(tmp_path, "second", patience=2.5).end() == TURNED_AWAY
    first.go_on.set()
    assert first.end() == 0
    assert final(tmp_path) == alone
    assert all(who == ["first"] for who in reported(tmp_path).values())
