"""A live federation of a handful of numbers, whose nodes come and go, on a clock that is turned by hand."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import Message, MetricRecord
from flwr.serverapp import Grid

from fedunlearn import config
from fedunlearn.evaluation.histograms import Withheld
from fedunlearn.federation.grid import FIRST_CLIENT_NODE
from fedunlearn.federation.local import LocalGrid
from fedunlearn.federation.payload import ModelState, pack, unpack
from fedunlearn.federation.robust import Aggregation
from fedunlearn.live.evaluation import Respondents
from fedunlearn.live.hooks import LiveConduct
from fedunlearn.requests import LIVE_BRANCH, Intake, Ledger
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.runs.history_files import HISTORY
from fedunlearn.server.history import History
from fedunlearn.server.recovery import RecoveryRule
from fedunlearn.server.rounds import RoundReport
from fedunlearn.strategies.base import UnlearningStrategy
from fedunlearn.strategies.puf import PUF
from tests.server.tiny import NUM_CLIENTS, Clients, initial_state, own_settings, settings, training

EXPERIMENT = f"""
name = "living"
[data]
source = "digits"
[federation]
num-clients = {NUM_CLIENTS}
[model]
name = "mlp"
[train]
rounds = 3
lr = 0.1
[[method]]
name = "puf"
[recover]
until = "reference-accuracy"
[requests]
"""


class Clock:
    """Unix seconds that pass when somebody waits, and whatever is to happen meanwhile."""

    def __init__(self, now: float = 1e9) -> None:
        self.now = now
        self.waited = 0
        self.meanwhile: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        """Wait; nothing waits for ever in a test."""
        self.now += seconds
        self.waited += 1
        assert self.waited < 1000, "the federation waits for something that does not happen"
        self.meanwhile()


class Roaming(Grid):
    """A grid whose nodes are asked whom they serve, and of which some may be away; what is sent to those is lost."""

    def __init__(self, clients: Clients, num_clients: int = NUM_CLIENTS) -> None:
        self._inner = LocalGrid(clients.app, num_clients)
        self.present = set(range(num_clients))
        self.sent: list[tuple[int, str]] = []

    def set_run(self, run: Any) -> None:
        self._inner.set_run(run)

    @property
    def run(self) -> Any:
        return self._inner.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        return self._inner.create_message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        return [FIRST_CLIENT_NODE + k for k in sorted(self.present)]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._inner.push_messages(list(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._inner.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Any:
        messages = list(messages)
        self.sent += [(m.metadata.dst_node_id - FIRST_CLIENT_NODE, m.metadata.message_type) for m in messages]
        here = [m for m in messages if m.metadata.dst_node_id - FIRST_CLIENT_NODE in self.present]
        yield from self._inner.send_and_receive(here)


@dataclass
class Scripted:
    """Measures by a formula of the round; nobody's data are looked at."""

    quality: Callable[[int, ModelState], float | None] = lambda round, state: 50.0
    seen: dict[int, ModelState] = field(default_factory=dict)
    too_many: Any = None

    def bind(self, clients: Respondents) -> None:
        """Ask nobody."""
        self.too_many = clients.too_many

    def __call__(self, round: int, arrays: Any) -> MetricRecord:
        self.seen[round] = unpack(arrays)
        return self._record(round, self.seen[round])

    def without(self, clients: Any, round: int, state: ModelState) -> MetricRecord:
        return self._record(round, state)

    def held_out(self, state: ModelState) -> Withheld:
        return Withheld("there is nothing")

    def _record(self, round: int, state: ModelState) -> MetricRecord:
        quality = self.quality(round, state)
        return MetricRecord({} if quality is None else {"validation-accuracy": quality})


@dataclass
class Living:
    """One live federation; `serve` is one server's life."""

    folder: Any
    rules: Mapping[str, Any] = field(default_factory=dict)
    guard: Mapping[str, Any] = field(default_factory=dict)
    clients: Clients = field(default_factory=Clients)
    evaluation: Scripted = field(default_factory=Scripted)
    clock: Clock = field(default_factory=Clock)
    roaming: bool = False
    ledger: Any = None
    rounds: int = 3
    max_rounds: int = 3
    quorum: float = 0.5
    participation: float = 1.0
    aggregation: Aggregation = field(default_factory=Aggregation)
    reports: list[RoundReport] = field(default_factory=list)
    strategy: Any = None
    on_report: Callable[[RoundReport], None] = lambda report: None

    def __post_init__(self) -> None:
        if self.ledger is None:
            self.ledger = Ledger(self.folder / "requests.sqlite", clock=self.clock)
        self.grid: Any = Roaming(self.clients) if self.roaming else LocalGrid(self.clients.app, NUM_CLIENTS)
        self.checkpoints = Checkpoints(self.folder / "checkpoints", LIVE_BRANCH)
        self.intake = Intake(self.ledger, num_clients=NUM_CLIENTS)

    @property
    def history(self) -> Path:
        """Return where what the method needs of earlier rounds is kept."""
        return Path(self.folder) / HISTORY / LIVE_BRANCH

    def ask(self, *clients: int) -> str:
        """Ask for clients to be forgotten, and return the request's id."""
        return self.intake.ask(clients, source="cli", actor="operator:test").request_id

    @property
    def experiment(self) -> config.Experiment:
        """The experiment, with this federation's rules."""
        sets = [f"requests.{key}={_toml(value)}" for key, value in self.rules.items()]
        sets += [f"guard.{key}={_toml(value)}" for key, value in self.guard.items()]
        return config.loads(EXPERIMENT, overrides=sets)

    def serve(self, kind: type[UnlearningStrategy] = PUF, rounds: int = 1000, **options: Any) -> "Living":
        """Run to the end, or up to a round."""

        def observe(report: RoundReport) -> None:
            self.reports.append(report)
            self.on_report(report)

        conduct = LiveConduct(
            self.experiment,
            self.ledger,
            self.folder,
            self.evaluation,
            clock=self.clock,
            pause=self.clock.pause,
        )
        rule = RecoveryRule(until="reference-accuracy", max_rounds=self.max_rounds)
        self.strategy = kind(
            settings(
                train=training(rounds=self.rounds),
                recovery=rule,
                stop_when_recovered=True,
                quorum=self.quorum,
                participation=self.participation,
                aggregation=self.aggregation,
            ),
            own_settings(kind, options),
            branch=LIVE_BRANCH,
            ledger=self.ledger,
            checkpoints=self.checkpoints,
            observe=observe,
            conduct=conduct,
            history=lambda keeps: History(keeps, self.history / keeps.name),
            **options,
        )
        self.strategy.start(self.grid, pack(initial_state()), num_rounds=rounds, evaluate_fn=self.evaluation)
        return self

    def at_round(self, round: int, do: Callable[[], Any]) -> None:
        """Let something happen while a round is being reported: the next round is the first to know."""
        before = self.on_report

        def then(report: RoundReport) -> None:
            before(report)
            if report.round == round:
                do()

        self.on_report = then

    def state(self, request: str) -> str:
        """Return a request's state."""
        return self.ledger.request(LIVE_BRANCH, request).state

    def life(self, request: str) -> list[tuple[str, int | None]]:
        """Return the states a request has been through, with their rounds."""
        return [(e.to_state, e.round) for e in self.ledger.audit(LIVE_BRANCH) if e.request_id == request]

    def report(self, round: int) -> RoundReport:
        """Return what the observer was told of a round."""
        (report,) = (r for r in self.reports if r.round == round)
        return report

    def weights(self, round: int) -> Any:
        """Return the weights after a round."""
        return self.checkpoints.load(round).vector


def _toml(value: Any) -> str:
    return (
        str(value).lower()
        if isinstance(value, bool)
        else f'"{value}"'
        if isinstance(value, str)
        else str(value)
    )
