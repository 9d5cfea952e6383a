"""A whole live federation, seen through what is measured of a request: by messages and by an engine's own trainer."""

from functools import partial

import pytest

from fedunlearn import config, workspace
from fedunlearn.clients.app import app
from fedunlearn.clients.tasks import routine_of
from fedunlearn.federation.local import LocalGrid
from fedunlearn.federation.payload import unpack
from fedunlearn.federation.tallies import EVALUATE, FORGOTTEN
from fedunlearn.live.evaluation import evaluation_of
from fedunlearn.live.service import serve_live
from fedunlearn.requests import LIVE_BRANCH, Ledger
from fedunlearn.runs.checkpoints import Checkpoints
from tests.federation.contributions import bits

TEXT = """
name = "live"
[data]
source = "synthetic-images"
num-train = 160
num-test = 40
num-classes = 4
partition = "dirichlet"
alpha = 1.0
validation = 0.2
[federation]
num-clients = 5
[model]
name = "mlp"
[train]
rounds = 3
batch-size = 16
lr = 0.1
[[method]]
name = "puf"
[requests]
[guard]
enabled = false
[recover]
until = "max-rounds"
max-rounds = 2
"""


class Watched(LocalGrid):
    """Records who was sent what, with which weights; routines only if ``direct``."""

    def __init__(self, experiment, path, direct):
        routine = partial(routine_of, experiment, experiment.seeds[0]) if direct else None
        run_config = {"experiment": str(path), "seed": experiment.seeds[0]}
        super().__init__(app, 5, run_config=run_config, routine=routine)
        self.sent = []

    def _answers(self, messages):
        for m in messages:
            weights = bits(unpack(m.content["arrays"]).vector)
            self.sent.append((m.metadata.message_type, m.metadata.dst_node_id - 2, weights))
        yield from super()._answers(messages)

    def asked(self, kind):
        return [client for sent, client, _ in self.sent if sent == kind]


class Live:
    """A run directory, and a server on it for as long as it has something to do."""

    def __init__(self, folder, *overrides, direct=True):
        folder.mkdir(exist_ok=True)
        self.experiment = config.loads(TEXT, overrides=overrides)
        path = folder / "experiment.toml"
        path.write_text(config.to_toml(self.experiment))
        self.grid = Watched(self.experiment, path, direct)
        self.ledger = Ledger(folder / "requests.sqlite")
        self.checkpoints = Checkpoints(folder / "checkpoints", LIVE_BRANCH)
        self.folder = folder
        self.metrics = {}
        self.asked_for = ()
        self.clerk = None

    def serve(self):
        data = workspace.data_of(self.experiment, self.experiment.seeds[0])
        with self.grid:
            serve_live(
                self.grid,
                self.experiment,
                ledger=self.ledger,
                checkpoints=self.checkpoints,
                folder=self.folder,
                evaluate=evaluation_of(self.experiment, data=lambda: data),
                holder="test",
                observe=self._observe,
                clerk=self.clerk,
            )
        return self

    def ask(self, *clients):
        """Let a request arrive during the first round."""
        self.asked_for = clients
        return self

    def _observe(self, report):
        self.metrics[report.round] = dict(report.metrics)
        if report.round == 1 and self.asked_for:
            self.ledger.submit(LIVE_BRANCH, request_id="r1", clients=self.asked_for)

    def stages(self):
        return self.ledger.measures(LIVE_BRANCH, "r1")


@pytest.mark.parametrize("direct", [True, False], ids=["trainer", "messages"])
@pytest.mark.parametrize("who", ["server", "clients"])
def test_a_request_is_measured_before_after_and_at_its_end(tmp_path, who, direct):
    live = Live(tmp_path, f'requests.validation="{who}"', direct=direct).ask(1, 3).serve()
    stages = live.stages()
    rounds = {name: document["round"] for name, document in stages.items()}
    assert rounds == {"before": 1, "unlearned": 2, "ended": 3}
    for name, document in stages.items():
        assert set(document["clients"]) == {"1", "3"}
        for found in document["clients"].values():
            known = {measure for measure, value in found["values"].items() if value is not None}
            expected = set() if name == "ended" else {"forget_accuracy", "forget_loss"}
            if who == "server" and name != "ended":
                expected.add("mia_auc_binned")
            assert known == expected
            assert set(found["reasons"]) == set(found["values"]) - known
        of_round = live.metrics[document["round"]]
        if name != "before" or who == "server":
            assert document["validation"]["accuracy"] == of_round["validation-accuracy"]
    assert stages["unlearned"]["told"] == [1, 3]
    assert live.grid.asked(FORGOTTEN) == [1, 3]
    after = bits(live.checkpoints.load(2).vector)
    assert {weights for kind, _, weights in live.grid.sent if kind == FORGOTTEN} == {after}


def test_with_and_without_messages_the_measures_and_the_weights_are_the_same(tmp_path):
    direct = Live(tmp_path / "direct").ask(2).serve()
    messages = Live(tmp_path / "messages", direct=False).ask(2).serve()
    assert direct.stages() == messages.stages()
    assert bits(direct.checkpoints.load(3).vector) == bits(messages.checkpoints.load(3).vector)
    assert not direct.grid.asked("train") and messages.grid.asked("train"), "they did go different ways"


def test_whom_a_round_forgets_does_not_measure_its_model(tmp_path):
    """Before and after are compared on the same data: those of the clients that stay."""
    live = Live(tmp_path, 'requests.validation="clients"').ask(1, 3).serve()
    of_round = {}
    for round in (1, 2, 3):
        weights = bits(live.checkpoints.load(round).vector)
        of_round[round] = [c for kind, c, w in live.grid.sent if kind == EVALUATE and w == weights]
    assert of_round[1] == [0, 1, 2, 3, 4], "before they were to be forgotten"
    assert of_round[2] == of_round[3] == [0, 2, 4]
    assert live.stages()["before"]["validation"]["clients"] == 3
    assert (live.metrics[1]["validation-clients"], live.metrics[2]["validation-clients"]) == (5, 3)
