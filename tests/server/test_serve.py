"""The server side as an app: every method by name, an experiment's settings in the right places, Flower's entry."""

from dataclasses import asdict, replace

import pytest
import torch
from flwr.app import Context, RecordDict

from fedunlearn import plugins, workspace
from fedunlearn.clients.app import app as client_app
from fedunlearn.errors import DivergedError
from fedunlearn.federation.local import LocalGrid
from fedunlearn.federation.payload import ModelState, pack, unpack
from fedunlearn.requests import Ledger
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.server.evaluation import ServerEvaluation
from fedunlearn.server.plans_ahead import plans
from fedunlearn.server.recovery import RetrainReference
from fedunlearn.server.serve import make_strategy, serve
from fedunlearn.simulation.branches import branches, floor_seed
from fedunlearn.simulation.runner import simulate
from fedunlearn.strategies.base import UnlearningStrategy
from fedunlearn.strategies.federaser import FedEraser
from fedunlearn.strategies.local_routine import LocalRoutine
from fedunlearn.strategies.natural import Natural
from fedunlearn.strategies.negation import NoT
from fedunlearn.strategies.pga import PGA
from fedunlearn.strategies.puf import PUF
from fedunlearn.strategies.retrain import Retrain
from fedunlearn.strategies.server_app import app
from tests.e2e.tiny import TIMELINE, TINY, tiny

EXPERIMENT = tiny(
    "federation.participation=0.5",
    "federation.quorum=0.75",
    "recover.epsilon=1.5",
    "recover.max-rounds=7",
    "train.lr-decay=0.9",
    text=TINY + '[[method]]\nname = "puf"\nmode = "regular"\nscale = 7.5\n',
)


def branch(name, experiment=EXPERIMENT):
    (found,) = (b for b in branches(experiment, 1) if b.name == name)
    return found


# -- strategies by name ---------------------------------------------------------------------------------------


def test_every_method_an_experiment_may_name_is_registered_and_retraining_is_one_of_them():
    ours = {
        "puf": PUF,
        "natural": Natural,
        "retrain": Retrain,
        "not": NoT,
        "pga": PGA,
        "federaser": FedEraser,
        "local-routine": LocalRoutine,
    }
    found = {name: plugins.find("strategies", name) for name in plugins.names("strategies")}
    assert ours == found
    assert all(issubclass(kind, UnlearningStrategy) and kind.__doc__ for kind in found.values())


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("original-s1", Retrain, {"excluded": frozenset()}),
        ("retrain-0-s1", Retrain, {"excluded": frozenset({1})}),
        ("floor-0-s1", Retrain, {"excluded": frozenset({1})}),
        ("puf-special-2-0-s1", PUF, {"mode": "special", "scale": 2.0}),
        ("puf-regular-7.5-0-s1", PUF, {"mode": "regular", "scale": 7.5}),
        ("natural-0-s1", Natural, {}),
    ],
)
def test_a_branch_gets_its_method_with_its_options(name, kind, options):
    strategy = make_strategy(EXPERIMENT, branch(name))
    assert type(strategy) is kind
    own = {"excluded": strategy.excluded} | asdict(strategy.method)
    assert {key: own[key] for key in options} == options
    assert strategy.docket.branch == name


def test_settings_come_from_the_experiment_and_the_seed_from_the_branch():
    references = {frozenset({1}): RetrainReference({4: 50.0})}
    settings = make_strategy(EXPERIMENT, branch("puf-special-2-0-s1"), references=references).settings
    assert (settings.num_clients, settings.slots, settings.quorum) == (4, 2, 0.75)
    assert settings.train == EXPERIMENT.train
    assert (settings.recovery.until, settings.recovery.epsilon) == ("retrain-accuracy", 1.5)
    assert (settings.recovery.max_rounds, settings.recovery.references) == (7, references)
    assert (settings.seed, settings.stop_when_recovered) == (1, False)
    assert make_strategy(EXPERIMENT, branch("floor-0-s1")).settings.seed == floor_seed(1)
    timeline = tiny(text=TIMELINE)
    method = branch("natural-timeline-s1", timeline)
    assert make_strategy(timeline, method).settings.stop_when_recovered
    assert make_strategy(timeline, method).round == 2, "behind it at the fork"


def test_what_the_strategy_writes_to_is_passed_on(tmp_path):
    with Ledger(":memory:") as ledger:
        store, observe = Checkpoints(tmp_path, "x"), print
        strategy = make_strategy(
            EXPERIMENT, branch("natural-0-s1"), ledger=ledger, checkpoints=store, observe=observe
        )
        assert (strategy.docket.ledger, strategy.checkpoints, strategy.observe) == (ledger, store, observe)


def test_plans_ahead_follow_the_requests():
    """Client 0 leaves after round 2, client 2 after round 3; everybody who is left takes part in every round."""
    experiment = tiny("federation.num-clients=5", text=TIMELINE)

    def planned(name):
        return [(p.round, p.train, p.forget) for p in plans(experiment, branch(name, experiment))]

    assert planned("natural-timeline-s1") == [
        (3, (1, 2, 3, 4), ()),
        *((round, (1, 3, 4), ()) for round in (4, 5, 6)),
    ]
    assert planned("puf-special-2-timeline-s1") == [
        (3, (), (0,)),
        (4, (), (2,)),
        *((round, (1, 3, 4), ()) for round in (5, 6)),
    ]
    assert [train for _, train, _ in planned("retrain-1-s1")] == [(1, 3, 4)] * 6


# -- serve ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A run of the tiny experiment, and the tiny experiment."""
    experiment = tiny()
    return simulate(experiment, out=tmp_path_factory.mktemp("simulated")), experiment


def context(**run_config):
    return Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=run_config)


def grid(path, seed=1, **options):
    return LocalGrid(client_app, 4, run_config={"experiment": str(path), "seed": seed}, **options)


class Queried(LocalGrid):
    """A grid that does not know its clients, as Flower's own do not: each is asked who it is."""

    client_nodes = property()

    def __getattribute__(self, name):
        if name == "client_nodes":
            raise AttributeError(name)
        return super().__getattribute__(name)


@pytest.mark.capability("flower")
@pytest.mark.parametrize("kind", [LocalGrid, Queried], ids=["in process", "clients are asked who they are"])
def test_flowers_server_app_ends_in_the_bytes_of_the_simulations_original(kind, simulated, tmp_path):
    folder, experiment = simulated
    path = folder / "experiment.toml"
    with kind(client_app, 4, run_config={"experiment": str(path), "seed": 1}) as nodes:
        app(nodes, context(experiment=str(path), folder=str(tmp_path)))
    name = f"original-s1-r{experiment.train.rounds:04d}.safetensors"
    written = sorted(p.name for p in (tmp_path / "checkpoints").glob("*.safetensors"))
    assert written == [name], "the last round alone is kept"
    assert (tmp_path / "checkpoints" / name).read_bytes() == (folder / "checkpoints" / name).read_bytes()
    with Ledger(tmp_path / "requests.sqlite") as ledger:
        assert [p.round for p in ledger.plans("original-s1")] == [1, 2, 3]
        assert ledger.requests("original-s1") == []


class Stopping(LocalGrid):
    """A grid that is cut off in a round."""

    stop_in = 3

    def send_and_receive(self, messages, **options):
        messages = list(messages)
        if messages[0].metadata.group_id.startswith(f"{self.stop_in}/"):
            raise ConnectionError("cut off")
        return super().send_and_receive(messages, **options)


def test_the_server_app_goes_on_where_it_stopped(simulated, tmp_path):
    folder, _ = simulated
    path = folder / "experiment.toml"
    told = context(experiment=str(path), folder=str(tmp_path))
    with (
        pytest.raises(ConnectionError),
        Stopping(client_app, 4, run_config={"experiment": str(path), "seed": 1}) as nodes,
    ):
        app(nodes, told)
    assert (tmp_path / "checkpoints" / "original-s1-r0002.safetensors").exists(), (
        "there is something to go on from"
    )
    with grid(path) as nodes:
        app(nodes, told)
    name = "original-s1-r0003.safetensors"
    assert (tmp_path / "checkpoints" / name).read_bytes() == (folder / "checkpoints" / name).read_bytes()
    with grid(path) as nodes:
        nodes.send_and_receive = lambda *_, **__: pytest.fail("it is complete: nobody is to be asked")
        app(nodes, told)


class Overheard(LocalGrid):
    """A grid that keeps the first message."""

    first = None

    def send_and_receive(self, messages, **options):
        messages = list(messages)
        self.first = self.first or messages[0]
        return super().send_and_receive(messages, **options)


@pytest.mark.parametrize("name", ["original-s1", "retrain-0-s1", "floor-0-s1"])
def test_without_a_fork_a_branch_begins_with_the_weights_that_its_training_seed_draws(
    name, simulated, tmp_path
):
    folder, experiment = simulated
    served = replace(branch(name, experiment), last_round=1)
    store = Checkpoints(tmp_path, name)
    run_config = {"experiment": str(folder / "experiment.toml"), "seed": 1}
    with Ledger(":memory:") as ledger, Overheard(client_app, 4, run_config=run_config) as nodes:
        serve(nodes, experiment, served, ledger=ledger, checkpoints=store)
        sent = nodes.first.content
    drawn = workspace.new_model(experiment, workspace.data_of(experiment, 1), served.training_seed)
    assert torch.equal(unpack(sent["arrays"]).vector, drawn.vector)
    assert sent["config"]["seed"] == served.training_seed == (floor_seed(1) if "floor" in name else 1)


def test_serving_a_branch_again_submits_nothing_twice_and_changes_nothing(simulated, tmp_path):
    folder, experiment = simulated
    method = branch("natural-0-s1", experiment)
    store = Checkpoints(tmp_path, method.name)
    fork = Checkpoints(folder / "checkpoints", "original-s1").load(3)
    references = {frozenset({1}): RetrainReference({4: 0.0})}
    with Ledger(":memory:") as ledger, grid(folder / "experiment.toml") as nodes:
        options = {"ledger": ledger, "checkpoints": store, "fork": fork, "references": references}
        (first,) = serve(nodes, experiment, method, **options)
        assert (first.id, first.outcome, first.ended_round) == ("target-0", "recovered", 4)
        before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
        trail = ledger.audit(method.name)
        assert serve(nodes, experiment, method, **options) == (first,)
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
        assert ledger.audit(method.name) == trail
    expected = Checkpoints(folder / "checkpoints", method.name).load(6).vector
    assert torch.equal(store.load(6).vector, expected), "as in the run, whose recovery was judged otherwise"


# -- what the server measures ---------------------------------------------------------------------------------


def measured(experiment, name, round):
    """Return the names of what is measured in a round."""
    data = workspace.data_of(experiment, 1)
    model = workspace.new_model(experiment, data, seed=3)
    state = pack(ModelState(model.vector, model.buffers()))
    return set(ServerEvaluation(experiment, data, branch(name, experiment))(round, state))


ALWAYS = {"test-accuracy", "test-loss", "validation-accuracy", "validation-loss"}
KNOWN = ALWAYS | {"forget-accuracy", "forget-loss", "retain-accuracy", "retain-loss"}


def test_training_data_are_looked_at_where_weights_are_kept_and_now_and_then_before():
    experiment = tiny("train.rounds=50", "targets=[[1, 2]]")
    watched = {f"forget-{metric}@client-{k}" for metric in ("accuracy", "loss") for k in (1, 2)}
    assert measured(experiment, "original-s1", 50) == ALWAYS | watched
    assert measured(experiment, "original-s1", 5) == ALWAYS | watched
    assert measured(experiment, "original-s1", 7) == ALWAYS
    assert measured(experiment, "retrain-0-s1", 7) == ALWAYS
    assert measured(experiment, "retrain-0-s1", 10) == KNOWN
    for round in (50, 51, 52, 53):
        assert measured(experiment, "retrain-0-s1", round) == KNOWN
    assert measured(experiment, "natural-0-s1", 51) == KNOWN


def test_without_validation_data_none_are_measured():
    experiment = tiny("data.validation=0", "recover.until=max-rounds")
    assert measured(experiment, "natural-0-s1", 4) == KNOWN - {"validation-accuracy", "validation-loss"}


def test_a_diverged_model_has_no_accuracy():
    experiment = tiny()
    data = workspace.data_of(experiment, 1)
    model = workspace.new_model(experiment, data, seed=3)
    state = pack(ModelState(torch.full_like(model.vector, float("inf")), {}))
    assert dict(ServerEvaluation(experiment, data, branch("retrain-0-s1", experiment))(4, state)) == {}
    with pytest.raises(DivergedError, match=r"^round 4: diverged, the model's outputs are not finite"):
        ServerEvaluation(experiment, data, branch("natural-0-s1", experiment))(4, state)


def test_values_are_percentages_and_nats_of_the_right_rows():
    experiment = tiny()
    data = workspace.data_of(experiment, 1)
    model = workspace.new_model(experiment, data, seed=3)
    found = ServerEvaluation(experiment, data, branch("natural-0-s1", experiment))(
        4, pack(ModelState(model.vector.clone(), {}))
    )
    with torch.no_grad():
        logits = model.module(data.train_images)
    mine = torch.from_numpy(data.clients[1])
    correct = logits.argmax(1) == data.train_labels
    losses = torch.nn.functional.cross_entropy(logits, data.train_labels, reduction="none")
    others = torch.ones(len(correct), dtype=torch.bool)
    others[mine] = False
    assert found["forget-accuracy"] == pytest.approx(100 * correct[mine].double().mean().item())
    assert found["retain-accuracy"] == pytest.approx(100 * correct[others].double().mean().item())
    assert found["forget-loss"] == pytest.approx(losses[mine].mean().item(), rel=1e-5)
    assert found["retain-loss"] == pytest.approx(losses[others].mean().item(), rel=1e-5)
