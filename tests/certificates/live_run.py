"""A live run directory without a federation: what a server would write, made by hand, for those who read it."""

import json
import shutil
from collections.abc import Sequence
from copy import copy
from pathlib import Path

import torch
from cryptography.hazmat.primitives.asymmetric import ed25519
from safetensors.torch import save

from fedunlearn import config, plugins
from fedunlearn.certificates.issuer import Clerk
from fedunlearn.certificates.keys import SigningKey
from fedunlearn.certificates.seals import file_digest
from fedunlearn.config import Experiment
from fedunlearn.durable import write_durably
from fedunlearn.federation.sums import Contribution
from fedunlearn.models.state import ModelState
from fedunlearn.requests import Ledger
from fedunlearn.requests.intake import Intake
from fedunlearn.runs.checkpoints import META, Checkpoints, Snapshot
from fedunlearn.runs.history_files import HISTORY
from fedunlearn.server.history import History

BRANCH = "federation"
KEY = SigningKey(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
NUM_CLIENTS = 6

LIVE = """
name = "hospitals"
data = {source = "digits"}
model = {name = "mlp"}
train = {rounds = 30, lr = 0.1}
federation = {num-clients = 6}
recover = {until = "reference-accuracy", epsilon = 1.0, max-rounds = 15}
method = [{name = "puf"}]
[requests]
store-updates = true
"""
REMEMBERING = 'method=[{name="tests.simulation.remembering:Remembering"}]'
"""A method that needs all updates of earlier rounds."""
RETURNING = 'method=[{name="tests.simulation.remembering:Returning"}]'
"""One that needs everybody's last weights, and what those rounds started from."""


def experiment(*overrides: str) -> Experiment:
    return config.loads(LIVE, overrides=overrides)


def update_of(client: int) -> bytes:
    """What the stored update of a client looks like in a raw file."""
    return f"<UPDATE OF CLIENT {client:04d}>".encode() * 64


def stored_update(client: int, round: int) -> bytes:
    """The file of a client's stored update."""
    delta = torch.frombuffer(bytearray(update_of(client)), dtype=torch.uint8)
    account = {"client": client, "num_examples": 10, "round": round}
    return save({"delta": delta}, metadata={META: json.dumps(account)})


def result_of(client: int, round: int) -> torch.Tensor:
    """What a client comes to in a round: as an update."""
    return torch.full((64,), 1e6 * (client + 1) + round)


def raw_result(client: int, round: int) -> bytes:
    """What it looks like in a raw file of the history."""
    return result_of(client, round).numpy().tobytes()


def weights_after(round: int) -> torch.Tensor:
    return torch.full((64,), 1000.0 + round)


def raw_weights(round: int) -> bytes:
    """What the weights after a round look like in a raw file."""
    return weights_after(round).numpy().tobytes()


class LiveRun:
    """One live run; `round` is the last round that is complete."""

    def __init__(self, folder: Path, *overrides: str, holder: str = "local@here:1") -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.experiment = experiment(*overrides)
        self.time = 1_795_441_800.0
        (folder / "experiment.toml").write_text(config.to_toml(self.experiment))
        self.ledger = Ledger(folder / "requests.sqlite", clock=self.clock)
        self.ledger.take_lease(BRANCH, holder, seconds=1e9)
        self.checkpoints = Checkpoints(folder / "checkpoints", BRANCH)
        self.history = self._open_history()
        (folder / "stored").mkdir(exist_ok=True)
        self.round = -1
        self.save()

    def copy(self, folder: Path) -> "LiveRun":
        """Return a copy of this run, whose ledger must be closed, as a server finds it that is started anew."""
        shutil.copytree(self.folder, folder)
        twin = copy(self)
        twin.folder = folder
        twin.ledger = Ledger(folder / "requests.sqlite", clock=twin.clock)
        twin.checkpoints = Checkpoints(folder / "checkpoints", BRANCH)
        twin.history = twin._open_history()
        return twin

    def _open_history(self) -> History:
        method = self.experiment.methods[0]
        keeps = plugins.find("strategies", method.name).needs(method.settings).keeps
        return History(keeps, None if keeps is None else self.folder / HISTORY / BRANCH / keeps.name)

    def clock(self) -> float:
        self.time += 7.0
        return self.time

    def clerk(self, key: SigningKey | None = KEY, database: Path | None = None) -> Clerk:
        return Clerk(
            self.folder,
            self.ledger,
            BRANCH,
            self.experiment,
            key,
            superlink_database=database,
            clock=self.clock,
        )

    def save(self) -> None:
        self.round += 1
        prepared = self.checkpoints.prepare(
            Snapshot(self.round, weights_after(self.round), {}, {"requests": []})
        )
        kept = {place: file_digest(path) for place, path in self.history.prepared.items()}
        self.clerk().seal(prepared, kept, complete=False)
        self.history.publish()
        self.checkpoints.publish(prepared)
        self.clerk().seal(prepared, kept, complete=True)
        self.history.settle()

    def train(self, clients: Sequence[int], rounds: int = 1, failed: Sequence[int] = ()) -> None:
        for _ in range(rounds):
            plan = {"round": self.round + 1, "train": list(clients), "forget": [], "requests": []}
            self.ledger.commit_plan(BRANCH, self.round + 1, plan)
            if failed:
                self.ledger.record_failures(BRANCH, self.round + 1, dict.fromkeys(failed, "did not answer"))
            answered = sorted(set(clients) - set(failed))
            self.history.begin(self.round + 1)
            updates = [Contribution(k, 10, result_of(k, self.round + 1)) for k in answered]
            self.history.record(ModelState(weights_after(self.round)), updates)
            for client in answered:
                path = self.folder / "stored" / f"client-{client}.safetensors"
                write_durably(path, stored_update(client, self.round + 1))
            self.save()

    def ask(self, *clients: int, actor: str = "operator:anna") -> str:
        return (
            Intake(self.ledger, BRANCH, num_clients=NUM_CLIENTS)
            .ask(clients, source="http", actor=actor)
            .request_id
        )

    def unlearn(self, *requests: str, stored: dict[int, int] | None = None) -> None:
        """Execute the round that forgets these requests."""
        round = self.round + 1
        forget = sorted({client for id_ in requests for client in self.ledger.request(BRANCH, id_).clients})
        plan = {"round": round, "train": [], "forget": forget, "requests": list(requests)}
        if stored:
            plan["stored"] = {str(client): of for client, of in stored.items()}
        self.ledger.commit_plan(BRANCH, round, plan)
        for id_ in requests:
            self.ledger.transition(BRANCH, id_, "unlearning", round=round)
        self.save()
        for id_ in requests:
            self.ledger.transition(BRANCH, id_, "recovering", round=round)

    def measure(self, request: str, stage: str, accuracy: dict[int, float], told: Sequence[int] = ()) -> None:
        """Note what was measured at a stage of a request, as the server does."""
        document = {
            "round": self.round,
            "validation": {"accuracy": 90.0, "loss": 0.25},
            "clients": {
                str(client): {
                    "values": {"forget_accuracy": value, "mia_auc_binned": None},
                    "reasons": {"mia_auc_binned": "too few of them"},
                }
                for client, value in accuracy.items()
            },
            "told": list(told),
        }
        self.ledger.note_measures(BRANCH, request, stage, document)

    def end(self, request: str, state: str, detail: str = "") -> None:
        self.ledger.transition(BRANCH, request, state, round=max(self.round, 0), detail=detail)

    def raw(self, marker: bytes) -> list[str]:
        """Return the files under the run directory in which these bytes stand."""
        files = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        return [str(path.relative_to(self.folder)) for path in files if marker in path.read_bytes()]


def ended_run(folder: Path, state: str, *overrides: str) -> tuple[LiveRun, str]:
    """Return a run in which clients 0 to 5 trained for three rounds and one request, for client 3, ended so."""
    run = LiveRun(folder, *overrides)
    run.train(range(6), 3)
    request = run.ask(3, actor="client:3")
    if state in ("forgotten", "forgotten-unrecovered", "superseded"):
        run.unlearn(request)
        run.train([0, 1, 2, 4, 5], 2)
    elif state == "refused":
        plan = {"round": 4, "train": [], "forget": [3], "requests": [request]}
        run.ledger.commit_plan(BRANCH, 4, plan)
        run.ledger.transition(BRANCH, request, "unlearning", round=4)
        run.save()
    run.end(request, state, detail="a remark")
    return run, request
