"""Run an experiment and die by SIGKILL at a named instant. Used by test_kill.py, in processes of its own."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fedunlearn.runs.checkpoints
import fedunlearn.simulation.runner
from fedunlearn.clients.classification import Classification
from fedunlearn.requests import Ledger
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.runs.directory import RunDirectory
from fedunlearn.runs.metrics_log import MetricsLog
from fedunlearn.server.history import History
from fedunlearn.server.request_queue import Docket
from fedunlearn.simulation.cache import Cache
from tests.e2e.tiny import run, tiny


def die() -> None:
    """As the machine would: no exception, no exit handler, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)


def _before(target: Any, name: str, when: Callable[..., bool]) -> None:
    original = getattr(target, name)

    def patched(*args: Any, **kwargs: Any) -> Any:
        if when(*args, **kwargs):
            die()
        return original(*args, **kwargs)

    setattr(target, name, patched)


def _after(target: Any, name: str, when: Callable[..., bool]) -> None:
    original = getattr(target, name)

    def patched(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if when(*args, **kwargs):
            die()
        return result

    setattr(target, name, patched)


class _Nth:
    """True at the n-th call."""

    def __init__(self, n: int) -> None:
        self.left = n

    def __call__(self, *args: Any, **kwargs: Any) -> bool:
        self.left -= 1
        return self.left == 0


def _unlearns(_ledger: Any, _branch: str, _round: int, plan: dict[str, Any]) -> bool:
    return bool(plan["requests"])


def _applies(_checkpoints: Any, snapshot: Any) -> bool:
    return any(r["unlearned_round"] == snapshot.round for r in snapshot.meta["requests"])


def _in_the_middle(_checkpoints: Any, snapshot: Any) -> bool:
    return snapshot.before is not None


def _torn_checkpoint(target: Any) -> None:
    def torn(path: Path, content: bytes) -> None:
        if "puf" in path.name:
            path.with_name(f".{path.name}.tmp").write_bytes(content[: len(content) // 2])
            die()
        original(path, content)

    original = target.write_durably
    target.write_durably = torn


POINTS: dict[str, Callable[[], None]] = {
    "before the plan is committed": lambda: _before(Ledger, "commit_plan", _unlearns),
    "after the plan is committed": lambda: _after(Ledger, "commit_plan", _unlearns),
    "in a client's ordinary training": lambda: _before(Classification, "train", _Nth(7)),
    "in the training of a client to forget": lambda: _before(
        Classification, "train", lambda self, client, kind, config, *_: config["round"] == 4
    ),
    "after combining, before the round is reported": lambda: _before(MetricsLog, "append", _Nth(15)),
    "before a checkpoint": lambda: _before(Checkpoints, "save", _applies),
    "half through a checkpoint": lambda: _torn_checkpoint(fedunlearn.runs.checkpoints),
    "after a checkpoint, before the ledger": lambda: _after(Checkpoints, "save", _applies),
    "before the ledger is reconciled": lambda: _before(Ledger, "reconcile", _Nth(2)),
    "after the ledger is reconciled": lambda: _after(Docket, "reconcile", _Nth(15)),
    "before a branch is recorded": lambda: _before(RunDirectory, "finish_branch", _Nth(2)),
    "before a branch is cached": lambda: _before(Cache, "store_branch", _Nth(2)),
    "while a cached branch is loaded": lambda: _after(Cache, "store_branch", _Nth(3)),
    "while measuring": lambda: _before(fedunlearn.simulation.runner.SeedScoring, "_row", _Nth(3)),
}
"""Instant → a patch that kills this process there. 'While a cached branch is loaded' dies with work in the cache
that the run directory does not know of yet."""

OF_KEPT_ROUNDS: dict[str, Callable[[], None]] = {
    "before kept rounds count": lambda: _before(History, "publish", _Nth(12)),
    "when kept rounds count, before the checkpoint": lambda: _after(History, "publish", _Nth(14)),
    "in the middle of a replay, before a checkpoint": lambda: _before(Checkpoints, "save", _in_the_middle),
    "in the middle of a replay, after a checkpoint": lambda: _after(Checkpoints, "save", _in_the_middle),
    "while stale files are deleted": lambda: _before(History, "settle", _Nth(13)),
}
"""The same, of methods that forget by kept rounds."""


def run_and_die(point: str, out: str, *, text: str, overrides: tuple[str, ...]) -> None:
    """Run until the named instant; ``point`` empty: until somebody else kills this process."""
    if point:
        (POINTS | OF_KEPT_ROUNDS)[point]()
    run(tiny(*overrides, text=text), Path(out), resume=True)
