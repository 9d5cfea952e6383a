"""What a certificate costs: the same however many requests came before, and nobody waits while it is composed."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.certificates import certificate
from fedunlearn.certificates import issuer as clerk_module
from fedunlearn.requests import Intake, Ledger, Move
from tests.certificates.live_run import BRANCH, NUM_CLIENTS, LiveRun

CLIENTS = 10_000


def crowded(folder: Path, number: int, how: str) -> LiveRun:
    """Return a run in which so many requests have ended since the last round: for one client, or in one step."""
    run = LiveRun(folder)
    run.ledger.store.rows("PRAGMA synchronous = OFF")
    run.train(range(NUM_CLIENTS), 2)
    intake = Intake(run.ledger, BRANCH, num_clients=CLIENTS)

    def ask(k: int, client: int) -> str:
        return intake.ask([client], source="http", actor=f"operator:o{k % 20}").request_id

    first = run.ask(3)
    run.unlearn(first)
    run.end(first, "forgotten")
    with run.ledger.batch():
        if how == "duplicates":
            for k in range(number):
                ask(k, 3)
        elif how == "withdrawn":
            for k in range(number):
                intake.withdraw(ask(k, 4), actor="operator:anna")
        else:
            ids = [ask(k, 100 + k) for k in range(number)]
            forget = [100 + k for k in range(number)]
            plan = {"round": run.round + 1, "train": [], "forget": forget, "requests": ids}
            run.ledger.commit_plan(BRANCH, run.round + 1, plan)
            for state in ("unlearning", "recovering", "forgotten"):
                run.ledger.transition_many(BRANCH, [Move(id_, state, run.round + 1) for id_ in ids])
    run.save()
    return run


def attended(run: LiveRun, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int, int]:
    """Let the clerk attend; return SQLite's instructions, folders listed, and the largest certificate's bytes."""
    steps, listed = [0], [0]

    def count() -> None:
        steps[0] += 1

    scandir, iterdir = os.scandir, Path.iterdir

    def counting(function: Any) -> Any:
        def counted(*args: Any) -> Any:
            listed[0] += 1
            return function(*args)

        return counted

    run.ledger.store._connection.set_progress_handler(count, 100)  # type: ignore[arg-type]
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", counting(scandir))
        patched.setattr(Path, "iterdir", counting(iterdir))
        run.clerk().attend(run.round)
    run.ledger.store._connection.set_progress_handler(None, 1)
    sizes = [path.stat().st_size for path in (run.folder / "certificates").glob("*.json")]
    return steps[0], listed[0], max(sizes)


@pytest.mark.parametrize("how", ["duplicates", "withdrawn", "one step"])
def test_a_certificate_costs_the_same_however_many_there_are(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = 20, 80
    steps, listed, size = attended(crowded(tmp_path / "few", few, how), monkeypatch)
    more_steps, more_listed, larger = attended(crowded(tmp_path / "many", many, how), monkeypatch)
    assert more_steps / many < 1.3 * steps / few, "instructions of SQLite for each"
    assert more_listed <= listed + 4, "folders looked at, for all together"
    assert larger < size + 64, "bytes of the largest certificate"


def test_whoever_asks_waits_for_nothing_that_is_composed_hashed_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = crowded(tmp_path / "run", 20, "duplicates")
    asked = Counter[str]()
    with Ledger(run.folder / "requests.sqlite") as door:
        door.store.rows("PRAGMA busy_timeout = 0")  # whoever finds the ledger locked is told at once

        def asking(name: str, function: Any) -> Any:
            def asks(*args: Any, **kwargs: Any) -> Any:
                intake = Intake(door, BRANCH, num_clients=CLIENTS)
                intake.ask([5], source="http", actor=f"operator:d{asked.total() // 50}")
                asked[name] += 1
                return function(*args, **kwargs)

            return asks

        with monkeypatch.context() as patched:
            for owner, name in [
                (certificate, "compose"),
                (certificate, "page"),
                (certificate, "write_synced"),
                (clerk_module, "weights_hash"),
            ]:
                patched.setattr(owner, name, asking(name, getattr(owner, name)))
            run.clerk().attend(run.round)
    assert asked["compose"] == asked["page"] == asked["write_synced"] == 21
    assert asked["weights_hash"] >= 2
    assert run.ledger.check_trail(BRANCH) == []
