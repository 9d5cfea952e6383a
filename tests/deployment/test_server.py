"""What ``flwr run`` starts on the server: settings, the run directory, the nodes that are waited for."""

import logging
from types import SimpleNamespace

import pytest
import torch
from flwr.app import Context, RecordDict

from fedunlearn import config, workspace
from fedunlearn.certificates.keys import SigningKey, new_key
from fedunlearn.certificates.verification import verify
from fedunlearn.clients.app import app as client_app
from fedunlearn.data.export import DataPart, export, write_part
from fedunlearn.deployment import server as deployed
from fedunlearn.deployment.server import Deployed, await_nodes
from fedunlearn.errors import RunError, UserError
from fedunlearn.federation.local import LocalGrid
from fedunlearn.live.nodes import Nodes
from fedunlearn.requests import LIVE_BRANCH, Intake, Ledger
from fedunlearn.runs.classes import classes_of_run
from fedunlearn.runs.metrics_log import MetricsLog
from fedunlearn.strategies.retrain import Retrain
from tests.deployment import tiny
from tests.server.tiny import NUM_CLIENTS, Clients, Federation, only, raising, settings


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "digits.toml"
    path.write_text(tiny.DIGITS)
    return path


def told(file, **run_config):
    names = ("folder", "roster", "validation", "signing-key", "superlink-database")
    settings = dict.fromkeys(names, "") | {"experiment": str(file)}
    settings |= {key.replace("_", "-"): str(value) for key, value in run_config.items()}
    return Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=settings)


def grid(file):
    return LocalGrid(client_app, tiny.CLIENTS, run_config={"experiment": str(file), "seed": 1})


def run(file, **run_config):
    with grid(file) as nodes:
        return deployed.run(nodes, told(file, **run_config))


def weights(folder):
    return tiny.run_weights(folder)


def test_a_run_leaves_a_run_directory_that_says_what_it_did(file, tmp_path):
    folder = run(file, folder=tmp_path / "run")
    assert folder == tmp_path / "run"
    assert config.load(folder / "experiment.toml") == config.load(file)
    metrics = MetricsLog(folder / "metrics.jsonl").of("original-s1")
    assert {address[1] for address in metrics} == {0, 1, 2}
    with Ledger(folder / "requests.sqlite") as ledger:
        (server,) = ledger.servers("original-s1")
    assert server.holder.startswith("flower-run-1@")


def test_a_folder_that_nobody_named_is_in_the_users_data_folder(file, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    folder = run(file)
    assert folder.parent == tmp_path / "share" / "fedunlearn" / "runs" and folder.name.startswith("digits-")


def test_a_server_without_the_clients_data_ends_in_the_same_weights(file, tmp_path, monkeypatch):
    """It validates on its file, and opens nothing else of the data."""
    experiment = config.load(file)
    export(workspace.data_of(experiment, 1), tmp_path / "data")
    wanted = weights(run(file, folder=tmp_path / "one"))
    with grid(file) as nodes:
        monkeypatch.setattr(
            deployed.workspace, "data_of", lambda *_: pytest.fail("the server has no such data")
        )
        monkeypatch.setattr(
            "fedunlearn.clients.node_data.routine_at",
            lambda *_: pytest.fail("a node reads its own file alone"),
        )
        monkeypatch.setattr(
            LocalGrid,
            "_context",
            lambda self, client: Context(
                1,
                2 + client,
                {"partition-id": client, "data-dir": str(tmp_path / "data" / f"client-{client}")},
                RecordDict(),
                {"experiment": str(file)},
            ),
        )
        validation = tmp_path / "data" / "server" / "validation.safetensors"
        deployed.run(nodes, told(file, folder=tmp_path / "two", validation=validation))
    assert weights(tmp_path / "two").equal(wanted)
    seen = {name: MetricsLog(tmp_path / name / "metrics.jsonl").of("original-s1") for name in ("one", "two")}
    key = ("original-s1", 2, "server", "validation", "accuracy")
    assert seen["two"][key].value == seen["one"][key].value
    assert {address[3] for address in seen["two"]} == {"round", "train", "validation"}, (
        "nothing of clients' data"
    )


def test_a_folder_of_other_settings_is_refused(file, tmp_path):
    run(file, folder=tmp_path / "run")
    file.write_text(tiny.DIGITS.replace("lr = 0.1", "lr = 0.2"))
    workspace.experiment_at.cache_clear()
    with pytest.raises(UserError, match=r'folder = ".*/run" \(run config\): holds a run with other settings'):
        run(file, folder=tmp_path / "run")


@pytest.mark.parametrize("key", ["folder", "roster", "validation", "signing-key", "superlink-database"])
def test_paths_on_the_server_are_absolute(file, key):
    with pytest.raises(UserError, match=rf'{key} = "here" \(run config\): must be an absolute path'):
        run(file, **{key: "here"})


def test_an_experiment_that_is_not_in_the_bundle_is_refused_with_those_that_are(file):
    with pytest.raises(UserError, match=r"no such file; the app bundle holds .*experiments/quickstart\.toml"):
        deployed.run(SimpleNamespace(), told("experiments/quickstrat.toml"))
    with pytest.raises(UserError, match=r"under this path on every machine"):
        deployed.run(SimpleNamespace(), told("/nowhere/quickstart.toml"))


def test_who_is_believed_without_a_roster_is_said_aloud(file, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    run(file, folder=tmp_path / "run")
    assert "no roster: every node is trusted to say which client it is" in caplog.text
    caplog.clear()
    (tmp_path / "roster.toml").write_text("")
    run(file, folder=tmp_path / "other", roster=tmp_path / "roster.toml")
    assert "no roster" not in caplog.text


# -- live --------------------------------------------------------------------------------------------------


def test_a_live_federation_whose_routine_cannot_forget_whole_clients_is_refused(tmp_path):
    file = tmp_path / "live.toml"
    file.write_text(tiny.LIVE.replace('"puf"', '"local-routine", routine = "salun"'))
    with pytest.raises(
        UserError, match=r'^method\[1\]\.routine = "salun" .*: needs retained examples, and a live fed'
    ):
        deployed.run(SimpleNamespace(), told(file, folder=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_live_federation_forgets_signs_and_certifies(tmp_path):
    file = tmp_path / "live.toml"
    file.write_text(tiny.LIVE)
    key = tmp_path / "signing.pem"
    new_key(key)
    folder = tmp_path / "run"
    run_config = {"folder": folder, "signing_key": key}
    with LocalGrid(client_app, 3, run_config={"experiment": str(file), "seed": 1}) as nodes:
        deployed.run(nodes, told(file, **run_config))
        with Ledger(folder / "requests.sqlite") as ledger:
            asked = Intake(ledger, num_clients=3).ask([1], source="cli", actor="operator:local")
        deployed.run(nodes, told(file, **run_config))
        nodes.send_and_receive = lambda *_, **__: pytest.fail("it is complete: nobody is to be asked")
        deployed.run(nodes, told(file, **run_config))
    with Ledger(folder / "requests.sqlite") as ledger:
        assert ledger.request(LIVE_BRANCH, asked.request_id).state == "forgotten"
        assert ledger.check_trail(LIVE_BRANCH) == []
        assert ledger.signed_heads(LIVE_BRANCH)
        holders = {server.holder for server in ledger.servers(LIVE_BRANCH)}
    assert all(holder.startswith("flower-run-1@") for holder in holders)
    assert (folder / "certificates" / f"{asked.request_id}.json").is_file()
    findings = verify(folder, public_keys=[SigningKey.load(key).public])
    unheld = [finding.text for finding in findings if finding.holds is not True]
    assert [text for text in unheld if not text.startswith("not covered: ")] == []


def test_the_roster_says_how_many_examples_a_client_has(tmp_path):
    file, roster = tmp_path / "live.toml", tmp_path / "roster.toml"
    file.write_text(tiny.LIVE)
    roster.write_text(
        "[[client]]\nnumber = 0\nnum-examples = 100000\n[[client]]\nnumber = 2\nnum-examples = 1\n"
    )
    folder = tmp_path / "run"
    with LocalGrid(client_app, 3, run_config={"experiment": str(file), "seed": 1}) as nodes:
        deployed.run(nodes, told(file, folder=folder, roster=roster))
    with Ledger(folder / "requests.sqlite") as ledger:
        failed = ledger.plan(LIVE_BRANCH, 1).failed
    assert list(failed) == [2] and "the roster allows at most 1" in failed[2]


def test_data_of_one_s_own_may_have_other_classes_than_the_experiment_s_source(tmp_path):
    """The names of the server's validation file count then: nobody is refused one of them."""
    experiment, folder = config.loads(tiny.LIVE), tmp_path / "run"
    data = workspace.data_of(experiment, 1)
    part = DataPart(data.validation_images, data.validation_labels, data.task, tuple("abcdefghijkl"))
    write_part(tmp_path / "validation.safetensors", part)
    (tmp_path / "live.toml").write_text(tiny.LIVE)
    with pytest.raises(StoppedError), LocalGrid(client_app, 3) as nodes:
        nodes.send_and_receive = stop
        deployed.run(
            nodes,
            told(tmp_path / "live.toml", folder=folder, validation=tmp_path / "validation.safetensors"),
        )
    assert classes_of_run(folder, experiment) == 12
    (folder / "classes.json").write_text("{")
    assert classes_of_run(folder, experiment) is None
    (folder / "classes.json").unlink()
    assert classes_of_run(folder, experiment) == 10


class StoppedError(Exception):
    """Raised where a server would first ask somebody."""


def stop(*_, **__):
    raise StoppedError


# -- waiting for nodes -------------------------------------------------------------------------------------


class Arriving:
    """Clients of which ``numbers[i]`` are there at the i-th look."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    @property
    def looks(self):
        return len(self.numbers)

    def client_nodes(self):
        now = self.numbers.pop(0) if len(self.numbers) > 1 else self.numbers[0]
        return {client: 100 + client for client in range(now)}


def wait(grid, file, *overrides):
    experiment, ticks = config.load(file, overrides=overrides), []
    known = Nodes(experiment.federation.num_clients)
    await_nodes(grid, experiment, known, clock=lambda: float(len(ticks)), sleep=ticks.append)
    return len(ticks)


@pytest.mark.parametrize(
    ("numbers", "overrides", "looks"),
    [
        ([2], (), 0),
        ([0, 0, 1, 2], (), 3),
        ([0, 1], ("federation.quorum=0.5",), 1),
        ([14], ("federation.num-clients=25", "federation.quorum=0.56"), 0),
    ],
)
def test_as_many_are_waited_for_as_the_quorum_asks_for(numbers, overrides, looks, file):
    assert wait(Arriving(*numbers), file, *overrides) == looks


def test_they_are_not_waited_for_for_ever(file):
    with pytest.raises(
        RunError, match=r"^1 of 2 clients are connected, but federation\.quorum requires 2: waited 901 s"
    ):
        wait(Arriving(1), file)


def test_the_wait_is_said_once_a_minute(file, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    wait(Arriving(*[0] * 100, 2), file)
    assert caplog.text.count("0 of 2 clients are connected") == 2


def test_threads_are_the_experiments(file, tmp_path):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        run(file, folder=tmp_path / "run")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_replies_of_a_superlink_are_fetched_one_by_one(file, tmp_path, monkeypatch):
    """The server's grid is the one that no node can stop; every message goes through it."""
    made = []

    def replaced(inner):
        made.append(Wrapped(inner))
        return made[0]

    monkeypatch.setattr(deployed, "superlink_grid", replaced)
    with grid(file) as nodes:
        nodes.trainer = None
        deployed.run(nodes, told(file, folder=tmp_path / "run"))
        assert made[0]._grid is nodes and made[0].sent == tiny.ROUNDS * tiny.CLIENTS


class Wrapped:
    """A grid that counts what is sent through it."""

    def __init__(self, grid):
        self._grid, self.sent = grid, 0

    def __getattr__(self, name):
        return getattr(self._grid, name)

    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        self.sent += len(messages)
        return self._grid.send_and_receive(messages, timeout=timeout)


def test_a_machine_without_memory_has_failed_alone():
    """Other machines are other machines: it says nothing of theirs."""
    clients = Clients(only(raising(MemoryError()), client=4))
    made = Federation(clients=clients, settings=settings(quorum=0.5))
    made.run(Retrain, 1, conduct=Deployed(Nodes(NUM_CLIENTS)))
    assert list(made.report(1).failed) == [4]
    assert sorted(made.report(1).losses) == [0, 1, 2, 3, 5]
