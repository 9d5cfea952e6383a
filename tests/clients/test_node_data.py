"""A node works with its own data: those in its folder, or those that the source would deal to it."""

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from fedunlearn import config, workspace
from fedunlearn.clients import node_data
from fedunlearn.clients.app import app
from fedunlearn.clients.node_data import routine_for
from fedunlearn.data.export import export
from fedunlearn.errors import ConfigError
from fedunlearn.federation.answers import ASSIGNMENT, NUMBER
from fedunlearn.federation.compat import ensure_task_identity
from fedunlearn.federation.payload import ModelState, pack, unpack
from fedunlearn.parts import Assignment, Part
from tests.deployment import tiny


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "digits.toml"
    path.write_text(tiny.DIGITS)
    return path


@pytest.fixture
def exported(file, tmp_path):
    export(workspace.data_of(config.load(file), 1), tmp_path / "data")
    node_data._own_part.cache_clear()
    return tmp_path / "data"


def context(file, **node_config):
    told = {key.replace("_", "-"): value for key, value in node_config.items()}
    return Context(1, 7, told, RecordDict(), {"experiment": str(file)})


def trained(file, kind="train", told=None, **node_config):
    """Return a node's answer to the first round."""
    ensure_task_identity()
    experiment = config.load(file)
    model = workspace.new_model(experiment, workspace.data_of(experiment, 1), 1)
    content = RecordDict(
        {
            "arrays": pack(ModelState(model.vector.clone(), model.buffers())),
            "config": ConfigRecord({"round": 1, "lr": 0.1, "seed": 1, **(told or {})}),
        }
    )
    reply = app(Message(content, 7, kind), context(file, **node_config))
    arrays = reply.content["arrays"]
    assert isinstance(arrays, ArrayRecord)
    return unpack(arrays).vector, reply.content["metrics"]


@pytest.mark.parametrize("client", range(tiny.CLIENTS))
def test_a_node_with_its_own_file_answers_as_one_that_has_the_source(client, file, exported, monkeypatch):
    wanted, metrics = trained(file, partition_id=client)
    monkeypatch.setattr(node_data, "routine_at", lambda *_: pytest.fail("it has a file of its own"))
    found, same = trained(file, partition_id=client, data_dir=str(exported / f"client-{client}"))
    assert found.equal(wanted) and wanted.norm() > 0
    assert same["num-examples"] == metrics["num-examples"]


def test_it_draws_the_rows_of_a_part_as_one_that_has_the_source(file, exported):
    assignment = Assignment(1, Part(tiny.CLIENTS, 1, samples=0.5))
    told = {ASSIGNMENT: assignment.dumps(), NUMBER: tiny.CLIENTS}
    wanted, metrics = trained(file, told=told, partition_id=1)
    found, same = trained(file, told=told, partition_id=1, data_dir=str(exported / "client-1"))
    assert found.equal(wanted)
    assert same["num-examples"] == metrics["num-examples"] < trained(file, partition_id=1)[1]["num-examples"]


def test_two_clients_are_not_the_same(file):
    assert not trained(file, partition_id=0)[0].equal(trained(file, partition_id=1)[0])


def test_a_node_opens_no_file_but_its_own(file, exported):
    for other in [*exported.glob("client-1/*"), *exported.glob("server/*")]:
        other.unlink()
    assert trained(file, partition_id=0, data_dir=str(exported / "client-0"))[0].norm() > 0


def test_the_engines_of_this_package_say_which_seed(file, monkeypatch):
    asked = []
    monkeypatch.setattr(node_data, "routine_at", lambda *which: asked.append(which))
    told = context(file, partition_id=0)
    routine_for(told)
    told.run_config["seed"] = 9
    routine_for(told)
    assert asked == [(str(file), 1), (str(file), 9)]


def test_an_experiment_of_the_bundle_is_found_from_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(node_data, "routine_at", lambda *which: asked.append(which))
    routine_for(context("experiments/quickstart.toml", partition_id=0))
    assert config.load(asked[0][0]).name == "quickstart"


def test_a_node_computes_with_as_many_threads_as_the_experiment_says(file):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        routine_for(context(file, partition_id=0))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("named", [None, "one", -1, 1.5])
def test_a_node_that_does_not_say_which_client_it_is_is_refused(named, file):
    node_config = {} if named is None else {"partition_id": named}
    with pytest.raises(ConfigError, match=rf"^partition-id = {named} \(node config\): must be the number"):
        trained(file, **node_config)


def test_a_node_with_anothers_file_is_refused(file, exported):
    with pytest.raises(ConfigError, match=r"has the data of client 1, but this node serves client 0"):
        trained(file, partition_id=0, data_dir=str(exported / "client-1"))
    with pytest.raises(ConfigError, match=r"has the data of client None, but this node serves client 0"):
        (exported / "server" / "validation.safetensors").rename(exported / "server" / "data.safetensors")
        trained(file, partition_id=0, data_dir=str(exported / "server"))


def test_a_client_that_the_experiment_does_not_have_is_refused(file, exported):
    with pytest.raises(ConfigError, match=r"^partition-id = 2 \(node config\): the experiment has 2 clients"):
        trained(file, partition_id=2, data_dir=str(exported / "client-1"))
