"""A federation of a handful of numbers: clients that answer by formula, and a record of what they were asked."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from fedunlearn.config import TrainConfig
from fedunlearn.federation.answers import CARRIES, EXTRAS, NUMBER, RAN, UPDATE, WORK, work_of
from fedunlearn.federation.jobs import RETURNS
from fedunlearn.federation.local import LocalGrid
from fedunlearn.federation.payload import ModelState, pack, packed, unpack
from fedunlearn.randomness import torch_generator
from fedunlearn.requests import Ledger
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.server.rounds import RoundReport
from fedunlearn.server.settings import Settings
from fedunlearn.strategies.base import UnlearningStrategy

NUM_CLIENTS = 6
SIZE = 5

Fault = Callable[[ModelState, int], tuple[ModelState, int]]
"""Spoils an answer (update, number of examples), or raises."""


@dataclass(frozen=True)
class Asked:
    """One message that a client got."""

    round: int
    client: int
    kind: str
    lr: float
    seed: int


def update_of(w: Tensor, round: int, client: int) -> Tensor:
    """Return the pseudo-gradient that this client answers with: awkward numbers that depend on w too."""
    noise = torch.randn(w.shape, generator=torch_generator(0, "tiny", round, client), dtype=w.dtype)
    return 0.1 * noise - 0.3 * torch.sin(w)


def examples_of(client: int) -> int:
    """Return n_k: another one for each of the first eleven clients."""
    return 3 + 7 * client % 11


def extra_of(length: int, round: int, client: int) -> Tensor:
    """Return what this client sends beside its update, where a job asks for a tensor."""
    return torch.randn(length, generator=torch_generator(0, "extra", round, client))


def buffers_after(buffers: Mapping[str, Tensor], client: int) -> dict[str, Tensor]:
    """Return a client's BatchNorm-like buffers after training."""
    if not buffers:
        return {}
    return {
        "mean": buffers["mean"] + 0.1 * client,
        "variance": 0.7 * buffers["variance"] + 0.05 * (client + 1),
        "batches": buffers["batches"] + client + 1,
    }


def initial_state(*, dtype: torch.dtype = torch.float32, buffers: bool = False) -> ModelState:
    """Return the model that federations start from."""
    vector = torch.linspace(-1, 1, SIZE, dtype=dtype)
    if not buffers:
        return ModelState(vector)
    ones = torch.ones(2, dtype=dtype)
    return ModelState(vector, {"mean": 0 * ones, "variance": ones, "batches": torch.tensor(0)})


def training(**changes: Any) -> TrainConfig:
    """Return the learning-rate schedule: halved every round."""
    return TrainConfig(**{"rounds": 3, "lr": 0.8, "lr_decay": 0.5, **changes})


def settings(**changes: Any) -> Settings:
    """Return what the strategy knows of this federation."""
    return Settings(**{"num_clients": NUM_CLIENTS, "train": training(), "seed": 7, **changes})


@dataclass
class Clients:
    """The client side.

    ``fault(round, client, kind)`` says how an answer is to be spoilt, if at all; ``rewritten(round, client, kind,
    content)`` changes what is about to be sent.
    """

    fault: Callable[[int, int, str], Fault | None] = lambda round, client, kind: None
    rewritten: Callable[[int, int, str, RecordDict], None] = lambda round, client, kind, content: None
    asked: list[Asked] = field(default_factory=list)

    def of_round(self, round: int, kind: str | None = None) -> list[int]:
        """Return the clients that were asked in a round, ascending."""
        return sorted(a.client for a in self.asked if a.round == round and kind in (None, a.kind))

    @property
    def app(self) -> ClientApp:
        """The Flower ClientApp."""
        app = ClientApp()
        app.train()(self._train)
        app.train("forget")(self._train)
        app.query()(self._query)
        return app

    def number(self, context: Context) -> int:
        """Return which client a node serves."""
        return int(context.node_config["partition-id"])

    def _train(self, message: Message, context: Context) -> Message:
        config = message.content["config"]
        assert isinstance(config, ConfigRecord)
        client, round = self.number(context), int(config["round"])
        kind = message.metadata.message_type
        self.asked.append(Asked(round, client, kind, float(config["lr"]), int(config["seed"])))
        received = unpack(message.content["arrays"])
        update = ModelState(
            update_of(received.vector, round, client), buffers_after(received.buffers, client)
        )
        num_examples = examples_of(client)
        if (spoil := self.fault(round, client, kind)) is not None:
            update, num_examples = spoil(update, num_examples)
        metrics = MetricRecord({"num-examples": num_examples, "train-loss": 1 / (1 + client)})
        if NUMBER in config:
            metrics[NUMBER] = config[NUMBER]
        work = ConfigRecord({CARRIES: UPDATE, RAN: work_of(config)})
        content = RecordDict({"arrays": pack(update), "metrics": metrics, WORK: work})
        if RETURNS in config:
            returns = json.loads(str(config[RETURNS]))
            content[EXTRAS] = packed({name: extra_of(n, round, client) for name, n in returns.items()})
        self.rewritten(round, client, kind, content)
        return Message(content, reply_to=message)

    def _query(self, message: Message, context: Context) -> Message:
        content = RecordDict({"metrics": MetricRecord({"client": self.number(context)})})
        return Message(content, reply_to=message)


@dataclass
class Federation:
    """One federation, its clients, and everything that was seen of it."""

    settings: Settings = field(default_factory=settings)
    clients: Clients = field(default_factory=Clients)
    start: ModelState = field(default_factory=initial_state)
    ledger: Ledger = field(default_factory=lambda: Ledger(":memory:"))
    checkpoints: Checkpoints | None = None
    measure: Callable[[int, ModelState], Mapping[str, float] | None] = lambda round, state: {}
    grid: Any = None
    branch: str = "tiny"
    states: dict[int, ModelState] = field(default_factory=dict)
    reports: list[RoundReport] = field(default_factory=list)
    strategy: UnlearningStrategy | None = None
    result: Any = None

    def submit(self, request: str, clients: Iterable[int], at_round: int | None) -> None:
        """Put a forget request into the ledger."""
        self.ledger.submit(self.branch, request_id=request, clients=tuple(clients), at_round=at_round)

    def run(self, kind: type[UnlearningStrategy], rounds: int, **options: Any) -> "Federation":
        """Run up to a round, from the latest checkpoint if there is one."""

        def evaluate(round: int, arrays: Any) -> MetricRecord | None:
            self.states[round] = unpack(arrays)
            measured = self.measure(round, self.states[round])
            return None if measured is None else MetricRecord(dict(measured))

        grid = self.grid or LocalGrid(self.clients.app, self.settings.num_clients)
        first = options.get("first_round", 0)
        self.states.setdefault(first, self.start)
        self.strategy = kind(
            self.settings,
            own_settings(kind, options),
            branch=self.branch,
            ledger=self.ledger,
            checkpoints=self.checkpoints,
            observe=self.reports.append,
            **options,
        )
        self.result = self.strategy.start(grid, pack(self.start), num_rounds=rounds, evaluate_fn=evaluate)
        return self

    def weights(self, round: int) -> Tensor:
        """Return the global weights after a round."""
        return self.states[round].vector

    def report(self, round: int) -> RoundReport:
        """Return what the observer was told of a round."""
        (report,) = (r for r in self.reports if r.round == round)
        return report

    def progress(self, request: str) -> Any:
        """Return how far a request has come, as the strategy has it."""
        assert self.strategy is not None
        (found,) = (r for r in self.strategy.requests if r.id == request)
        return found

    def life(self, request: str) -> list[tuple[str, int | None]]:
        """Return the states a request has been through, with their rounds."""
        return [(e.to_state, e.round) for e in self.ledger.audit(self.branch) if e.request_id == request]


def own_settings(kind: type[UnlearningStrategy], options: dict[str, Any]) -> Any:
    """Take a strategy's own settings out of the keywords for its constructor."""
    names = {f.name for f in fields(kind.settings_type)}
    return kind.settings_type(**{name: options.pop(name) for name in [*options] if name in names})


def averaged(w: Tensor, round: int, clients: Iterable[int]) -> Tensor:
    """Return federated averaging over these clients, the plain way (float64)."""
    w = w.double()
    clients = list(clients)
    total = sum(map(examples_of, clients))
    return w + sum(examples_of(k) / total * update_of(w, round, k) for k in clients)


def raising(error: BaseException) -> Fault:
    """Return the fault of a client app that raises an error like this one."""

    def spoil(update: ModelState, num_examples: int) -> tuple[ModelState, int]:
        raise type(error)(*error.args)  # a new one each time: an error keeps its old tracebacks

    return spoil


def with_examples(number: int) -> Fault:
    """Return the fault of a client that reports this number of examples."""
    return lambda update, _: (update, number)


def with_vector(change: Callable[[Tensor], Tensor]) -> Fault:
    """Return the fault of a client that sends another vector."""
    return lambda update, n: (replace(update, vector=change(update.vector)), n)


def with_buffers(change: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]) -> Fault:
    """Return the fault of a client that sends other buffers."""
    return lambda update, n: (replace(update, buffers=change(dict(update.buffers))), n)


def only(fault: Fault, *, client: int, rounds: Iterable[int] = range(1000)) -> Any:
    """Let one client fail, in some rounds."""
    return lambda round, k, kind: fault if k == client and round in rounds else None
