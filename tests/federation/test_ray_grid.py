"""The Ray engine as a Flower Grid: it answers what the local one answers."""

from contextlib import suppress

import psutil
import pytest
import ray
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.run import Run

from fedunlearn.federation.grid import FIRST_CLIENT_NODE
from fedunlearn.federation.local import LocalGrid
from fedunlearn.federation.payload import ModelState, pack, unpack
from fedunlearn.federation.ray import RayGrid
from tests.federation import ray_routines
from tests.federation.contributions import bits

APP = "tests.federation.ray_routines:app"
CONFIG = {"seed": 9, "experiment": "x.toml"}


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def others():
    """Processes that tests of other files may have left to this one."""
    return set(psutil.Process().children(recursive=True))


@pytest.fixture(scope="module")
def grid(others):
    with RayGrid(APP, 20, run_config=CONFIG, workers=2, cpus_per_worker=0.4) as made:
        yield made


@pytest.fixture
def local():
    with LocalGrid(ray_routines.app, 20, run_config=CONFIG) as made:
        yield made


def messages(kind, *nodes, content=None, **config):
    content = RecordDict({"config": ConfigRecord(config)}) if content is None else content
    return [Message(content, node, kind, group_id="7") for node in nodes]


def nodes_of(*clients):
    return [FIRST_CLIENT_NODE + client for client in clients]


def told(replies):
    """Return node → what it answered, and to which kind of message of which group."""
    return {
        r.metadata.src_node_id: (
            r.metadata.message_type,
            r.metadata.group_id,
            r.error.reason.splitlines()[-1] if r.has_error() else dict(r.content["config"]),
        )
        for r in replies
    }


def test_a_client_is_told_who_it_is_and_keeps_its_state(grid, local):
    for clients in [(0, 1), (1, 2), (0, 1, 2)]:
        answered = told(grid.send_and_receive(messages("query", *nodes_of(*clients))))
        assert answered == told(local.send_and_receive(messages("query", *nodes_of(*clients))))
    assert [answered[node][2]["asked"] for node in nodes_of(0, 1, 2)] == [2, 3, 2]


def test_weights_go_out_and_come_back(grid, local):
    large = torch.linspace(-1, 1, 100_000)
    arrays = pack(ModelState(large, {"mean": torch.ones(2)}))
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"round": 1})})

    def trained(engine):
        replies = engine.send_and_receive(messages("train", *nodes_of(*range(15)), content=content))
        states = {}
        for reply in replies:
            client = reply.metadata.src_node_id - FIRST_CLIENT_NODE
            if client == 13:
                assert "RuntimeError: an unlucky number" in reply.error.reason
                assert reply.error.reason.startswith("Traceback")
            else:
                state = unpack(reply.content["arrays"])
                states[client] = (bits(state.vector), bits(state.buffers["mean"]))
        return dict(sorted(states.items()))

    assert trained(grid) == trained(local)
    assert isinstance(arrays, ArrayRecord) and bits(unpack(arrays).vector) == bits(large)


def test_one_record_in_many_messages_is_sent_once(grid, monkeypatch):
    put = []
    monkeypatch.setattr(ray, "put", lambda thing, real=ray.put: put.append(thing) or real(thing))
    content = RecordDict({"arrays": pack(ModelState(torch.zeros(100_000))), "config": ConfigRecord()})
    replies = list(grid.send_and_receive(messages("train", *nodes_of(*range(10)), content=content)))
    assert len(replies) == 10 and not any(reply.has_error() for reply in replies)
    assert len(put) == 1


@pytest.mark.parametrize("node", [0, FIRST_CLIENT_NODE + 20])
def test_a_node_that_does_not_exist_and_a_message_that_nobody_handles_are_error_replies(grid, local, node):
    for kind, to in [("query", node), ("evaluate", FIRST_CLIENT_NODE)]:
        (here,), (there,) = (engine.send_and_receive(messages(kind, to)) for engine in (grid, local))
        assert here.error.reason.splitlines()[-1] == there.error.reason.splitlines()[-1]


def test_push_and_pull_and_the_run(grid):
    grid.set_run(Run.create_empty(run_id=42))
    sent = messages("query", *nodes_of(10, 11))
    ids = list(grid.push_messages(sent))
    (reply,) = grid.pull_messages([ids[1], "unknown"])
    assert reply.content["config"]["run"] == 42
    assert reply.metadata.src_node_id == nodes_of(11)[0]
    assert not list(grid.pull_messages([ids[1]]))
    assert list(grid.get_node_ids()) == nodes_of(*range(20)) == list(grid.client_nodes().values())


def test_a_client_app_without_a_name_travels_too(grid):
    app = ClientApp()

    @app.query()
    def query(message, context):
        return Message(
            RecordDict({"metrics": MetricRecord({"threads": torch.get_num_threads()})}), reply_to=message
        )

    before = torch.get_num_threads()
    with RayGrid(app, 1, workers=1, threads_per_client=2, cpus_per_worker=0.001) as other:
        (reply,) = other.send_and_receive(messages("query", FIRST_CLIENT_NODE))
    assert reply.content["metrics"]["threads"] == 2
    assert torch.get_num_threads() == before


def test_everything_listens_on_this_machine_alone(grid, others):
    """And there are no processes but those that run actors."""
    ears, names = [], ""
    for process in set(psutil.Process().children(recursive=True)) - others:
        with suppress(psutil.NoSuchProcess):  # an actor of the test before may just be going
            ears += [c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
            names += " ".join(process.cmdline())
    assert ears
    assert {ip.removeprefix("::ffff:") for ip in ears} == {"127.0.0.1"}
    assert "dashboard/dashboard.py" not in names and "monitor.py" not in names
