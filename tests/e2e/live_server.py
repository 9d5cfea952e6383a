"""One life of a live federation's server, that ends by SIGKILL at a named instant. Used by test_live_killed.py."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.fx.experimental.symbolic_shapes  # which building a model imports late, and which takes half a second

from fedunlearn import config, workspace
from fedunlearn.certificates import certificate, retention
from fedunlearn.certificates.issuer import Clerk
from fedunlearn.clients.classification import Classification
from fedunlearn.federation.answers import FORGET
from fedunlearn.federation.local_trainer import LocalTrainer
from fedunlearn.live.evaluation import ServerFileEvaluation, evaluation_of
from fedunlearn.live.local import run_live
from fedunlearn.live.measurements import RequestMeasures
from fedunlearn.live.request_queue import LiveDocket
from fedunlearn.live.service import serve_live
from fedunlearn.requests import LIVE_BRANCH, FencedError, LeaseHeldError, Ledger
from fedunlearn.requests.lease import Lease
from fedunlearn.requests.store import Store
from fedunlearn.runs import checkpoints
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.runs.metrics_log import MetricsLog
from fedunlearn.simulation.engines import open_grid

NUM_CLIENTS = 256
POISONED = 255
"""Answers its own forgetting with an update that would ruin the model."""
FLAKY = (17, 99, 150)
"""Fail at their forgetting in rounds of even number."""

EXPERIMENT = f"""
name = "killed"
cache = false
[data]
source = "synthetic-images"
num-train = 2304
num-test = 20
num-classes = 4
image-size = 4
difficulty = 0.05
partition = "iid"
validation = 0.1
[federation]
num-clients = {NUM_CLIENTS}
participation = 0.5
quorum = 0.5
[model]
name = "mlp"
hidden = [8]
[train]
rounds = 40
batch-size = 8
lr = 0.3
[[method]]
name = "puf"
scale = 0.3
[recover]
until = "reference-accuracy"
epsilon = 5
max-rounds = 2
[guard]
max-norm = 1e7
max-drop = 25
[requests]
"""

Condition = Callable[..., bool]


def always(*args: Any, **kwargs: Any) -> bool:
    """Whatever the arguments."""
    return True


def _unlearns(ledger: Any, branch: str, round: int, plan: Any) -> bool:
    return bool(plan["requests"])


def _begins_to_unlearn(docket: Any, plan: Any) -> bool:
    return bool(plan.requests)


def _trains_to_forget(trainer: Any, work: Any) -> bool:
    return bool(work.forget)


def _is_to_forget(routine: Any, client: int, kind: str, *_: Any) -> bool:
    return kind == FORGET


def _moves(ledger: Any, branch: str, moves: Any) -> bool:
    return bool(moves)


def _applies(checkpoints: Any, snapshot: Any) -> bool:
    return any(r["unlearned_round"] == snapshot.round for r in snapshot.meta["requests"])


def _commits(store: Any, sql: str, *values: Any) -> bool:
    return sql == "COMMIT"


CALLS: tuple[tuple[str, Any, str, Condition], ...] = (
    ("the lease is taken", Ledger, "take_lease", always),
    ("what was prepared before is swept away", Checkpoints, "sweep", always),
    ("the plan of an ordinary round is committed", Ledger, "commit_plan", always),
    ("the plan of an unlearning round is committed", Ledger, "commit_plan", _unlearns),
    ("requests change state", Ledger, "transition_many", _moves),
    ("the unlearning is noted", LiveDocket, "begin", _begins_to_unlearn),
    ("an ordinary round is trained", LocalTrainer, "train_round", always),
    ("an unlearning round is trained", LocalTrainer, "train_round", _trains_to_forget),
    ("a client to forget trains", Classification, "train", _is_to_forget),
    ("who failed is recorded", Ledger, "record_failures", always),
    ("the model is measured", ServerFileEvaluation, "__call__", always),
    ("what was measured of requests is noted", RequestMeasures, "note", always),
    ("a checkpoint is prepared", Checkpoints, "prepare", _applies),
    ("the round is reported", MetricsLog, "append", always),
    ("the checkpoint is published", Checkpoints, "publish", always),
    ("the ledger is brought up to the checkpoint", Ledger, "reconcile", always),
    ("requests for what is forgotten are ended", LiveDocket, "reconcile", always),
    ("the forgotten are told", RequestMeasures, "tell", always),
    ("the measures of a stage are written", Ledger, "note_measures", always),
    ("the clerk attends", Clerk, "attend", always),
    ("earlier weights are purged", retention, "purge", always),
    ("a certificate is prepared", certificate, "prepare", always),
    ("certificates are published", certificate, "publish", always),
    ("a transaction is committed", Store, "rows", _commits),
)
"""The calls before and after which the server can die, and which of them are meant."""
LAST = ("the lease is released", Lease, "release", always)
"""The one that comes only when everything is done."""

Point = tuple[str, str]
POINTS: tuple[Point, ...] = (
    *((when, name) for name, *_ in CALLS for when in ("before", "after")),
    ("half through", "a checkpoint"),
    ("half through", "a line of metrics"),
)
AT_THE_END: tuple[Point, ...] = (("before", LAST[0]), ("after", LAST[0]))


def die() -> None:
    """As the machine would: no exception, no exit handler, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)


class _Nth:
    """True at the n-th time that the condition is."""

    def __init__(self, condition: Condition, n: int) -> None:
        self._condition = condition
        self._left = n

    def __call__(self, *args: Any, **kwargs: Any) -> bool:
        if self._condition(*args, **kwargs):
            self._left -= 1
            return self._left == 0
        return False


def arm(point: Point, n: int) -> None:
    """Let this process die at the n-th time that it comes to a point."""
    when, name = point
    if when == "half through":
        _tear(name)
        return
    ((_, owner, attribute, condition),) = (call for call in (*CALLS, LAST) if call[0] == name)
    original = getattr(owner, attribute)
    due = _Nth(condition, n)

    def patched(*args: Any, **kwargs: Any) -> Any:
        now = due(*args, **kwargs)
        if now and when == "before":
            die()
        result = original(*args, **kwargs)
        if now:
            die()
        return result

    setattr(owner, attribute, patched)


def _tear(name: str) -> None:
    """Let this process die when half of something is on the disk."""
    if name == "a checkpoint":

        def torn(path: Path, content: bytes) -> None:
            path.write_bytes(content[: len(content) // 2])
            die()

        checkpoints.write_synced = torn
        return

    def append(log: MetricsLog, metrics: Any) -> None:
        with log._path.open("a") as file:
            file.write('{"branch": "federation", "rou')
        die()

    MetricsLog.append = append  # type: ignore[method-assign]


def with_faults() -> None:
    """Let some clients fail, and one be evil: for reasons that are there again whenever the round is executed."""
    whole = Classification.train

    def train(self: Classification, client: int, kind: str, config: Any, tensors: Any) -> Any:
        round = int(config["round"])
        if kind == FORGET and client in FLAKY and round % 2 == 0:
            raise OSError(f"client {client} is lost in round {round}")
        if kind != FORGET and (31 * round + client) % 61 == 0:
            raise OSError(f"client {client} is lost in round {round}")
        start = self.model.vector.clone()
        result = whole(self, client, kind, config, tensors)
        if kind == FORGET and client == POISONED:
            self.model.vector.add_(self.model.vector - start, alpha=1e6)
        return result

    Classification.train = train  # type: ignore[method-assign]


def live(out: str, point: Point | None, n: int, serving: Any) -> None:
    """Serve until the end, the named instant, or until somebody kills this process.

    ``serving`` is set once there is a first round to execute.
    """
    torch.set_num_threads(1)
    os.fsync = lambda descriptor: None  # a killed process takes nothing from the system's caches
    with_faults()
    begins = LiveDocket.plan

    def plan(self: LiveDocket, *args: Any) -> Any:
        serving.set()
        return begins(self, *args)

    LiveDocket.plan = plan  # type: ignore[method-assign]
    if point is not None:
        arm(point, n)
    experiment = config.loads(EXPERIMENT)
    key = Path(out) / "signing.pem"
    run_live(experiment, out=Path(out) / "runs", resume=True, key=key, lease_seconds=0.4, takeover_seconds=60)


REPLACED, TURNED_AWAY = 3, 4
"""Exit codes of a server that lost its lease, and of one that did not get it."""


def compete(
    folder: str, name: str, hang: str, renews: bool, patience: float, hanging: Any, go_on: Any
) -> None:
    """Serve a run directory that another server may have, as two ServerApps would: without a lock on the folder.

    ``hang``: the call of CALLS before which this server hangs, until ``go_on`` is set; empty: it never does.
    ``renews``: whether it renews its lease, or is as one that is cut off. ``patience``: seconds that it waits for
    another's lease.
    """
    torch.set_num_threads(1)
    os.fsync = lambda descriptor: None
    experiment = config.loads(EXPERIMENT, overrides=["train.rounds=8"])
    path = Path(folder) / "experiment.toml"
    path.write_text(config.to_toml(experiment))
    if hang:
        ((_, owner, attribute, condition),) = (call for call in CALLS if call[0] == hang)
        original = getattr(owner, attribute)
        due = _Nth(condition, 4)

        def hangs(*args: Any, **kwargs: Any) -> Any:
            if due(*args, **kwargs):
                hanging.set()
                go_on.wait(600)
            return original(*args, **kwargs)

        setattr(owner, attribute, hangs)
    if not renews:
        Lease._renew_until = lambda lease, done: None  # type: ignore[method-assign]
    data = workspace.data_of(experiment, 1)
    try:
        with Ledger(Path(folder) / "requests.sqlite") as ledger, open_grid(experiment, str(path), 1) as grid:
            serve_live(
                grid,
                experiment,
                ledger=ledger,
                checkpoints=Checkpoints(Path(folder) / "checkpoints", LIVE_BRANCH),
                folder=Path(folder),
                evaluate=evaluation_of(experiment, data=lambda: data),
                holder=name,
                observe=lambda report: _append(Path(folder), name, report.round),
                lease_seconds=1.0,
                takeover_seconds=patience,
            )
    except FencedError:
        raise SystemExit(REPLACED) from None
    except LeaseHeldError:
        raise SystemExit(TURNED_AWAY) from None


def _append(folder: Path, name: str, round: int) -> None:
    with (folder / "reported.txt").open("a") as file:
        file.write(f"{round} {name}\n")
