"""The in-process engine, as a Flower Grid."""

import threading

import pytest
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedunlearn.federation.local import FIRST_CLIENT_NODE, LocalGrid

WORKERS = pytest.mark.parametrize("workers", [1, 3])


def app_of(answer):
    """Return a ClientApp that answers queries with the metrics ``answer(message, context)``."""
    app = ClientApp()

    @app.query()
    def query(message, context):
        metrics = MetricRecord(answer(message, context))
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def messages(*nodes, **config):
    content = RecordDict({"config": ConfigRecord(config)})
    return [Message(content, node, "query", group_id="7") for node in nodes]


def nodes_of(*clients):
    return [FIRST_CLIENT_NODE + client for client in clients]


def ask(grid, *clients, **config):
    """Return client → metrics, or the error's reason."""
    replies = grid.send_and_receive(messages(*nodes_of(*clients), **config))
    return {
        r.metadata.src_node_id - FIRST_CLIENT_NODE: r.error.reason
        if r.has_error()
        else dict(r.content["metrics"])
        for r in replies
    }


@WORKERS
def test_every_client_knows_its_number_how_many_there_are_and_the_run(workers):
    def answer(message, context):
        return {**context.node_config, "node": context.node_id, "seed": context.run_config["seed"]}

    with LocalGrid(app_of(answer), 4, run_config={"seed": 9}, workers=workers) as grid:
        assert ask(grid, 0, 1, 2, 3) == {
            k: {"partition-id": k, "num-partitions": 4, "node": FIRST_CLIENT_NODE + k, "seed": 9}
            for k in range(4)
        }


@WORKERS
def test_a_reply_belongs_to_its_message(workers):
    with LocalGrid(app_of(lambda m, c: {"x": 1}), 3, workers=workers) as grid:
        sent = messages(*nodes_of(2, 0, 1))
        replies = list(grid.send_and_receive(sent))
        by_id = {r.metadata.reply_to_message_id: r.metadata for r in replies}
        assert len(by_id) == 3
        for message in sent:
            reply = by_id[message.metadata.message_id]
            assert reply.src_node_id == message.metadata.dst_node_id
            assert reply.message_type == message.metadata.message_type == "query"
            assert reply.group_id == "7"
        again = messages(*nodes_of(0))
        list(grid.send_and_receive(again))
        assert again[0].metadata.message_id not in by_id, "no two messages of a run have one id"


@WORKERS
def test_a_client_that_raises_answers_with_its_traceback_and_the_others_go_on(workers):
    def answer(message, context):
        if context.node_config["partition-id"] == 1:
            raise ZeroDivisionError("flat battery")
        return {"x": 1}

    with LocalGrid(app_of(answer), 3, workers=workers) as grid:
        replies = ask(grid, 0, 1, 2)
        assert replies[0] == replies[2] == {"x": 1}
        assert replies[1].startswith("Traceback (most recent call last)")
        assert "in answer" in replies[1]
        assert replies[1].endswith("ZeroDivisionError: flat battery\n")


def test_what_nobody_handles_is_an_error_reply():
    with LocalGrid(app_of(lambda m, c: {"x": 1}), 1) as grid:
        (reply,) = grid.send_and_receive([Message(RecordDict(), FIRST_CLIENT_NODE, "train")])
        assert "No train function registered" in reply.error.reason


@pytest.mark.parametrize("node", [0, 1, FIRST_CLIENT_NODE + 3, 999])
def test_a_node_that_does_not_exist_is_an_error_reply(node):
    with LocalGrid(app_of(lambda m, c: {"x": 1}), 3) as grid:
        (reply,) = grid.send_and_receive(messages(node))
        assert reply.error.reason == f"there is no node {node}"


@WORKERS
def test_push_and_pull(workers):
    """Ids come in the order of the messages, whichever client is done first; every reply can be had once."""
    first_is_last = threading.Event()

    def answer(message, context):
        client = int(context.node_config["partition-id"])
        if workers > 1 and client == 0:
            assert first_is_last.wait(10)
        first_is_last.set()
        return {"client": client}

    with LocalGrid(app_of(answer), 3, workers=workers) as grid:
        sent = messages(*nodes_of(0, 1, 2))
        ids = list(grid.push_messages(sent))
        assert ids == [m.metadata.message_id for m in sent]
        replies = list(grid.pull_messages([ids[2], ids[0], "unknown"]))
        assert [r.content["metrics"]["client"] for r in replies] == [2, 0]
        assert list(grid.pull_messages([ids[2]])) == []
        (reply,) = grid.pull_messages(ids)
        assert reply.metadata.reply_to_message_id == ids[1]


def test_with_one_worker_a_client_works_when_its_reply_is_asked_for():
    """Replies are summed as they come: no more than one is waiting."""
    done = []
    with LocalGrid(app_of(lambda m, c: done.append(c.node_id) or {"x": 1}), 3) as grid:
        replies = grid.send_and_receive(messages(*nodes_of(0, 1, 2)))
        for count in range(3):
            assert len(done) == count
            next(replies)
    assert done == nodes_of(0, 1, 2)


def test_workers_work_at_the_same_time():
    together = threading.Barrier(3, timeout=10)

    def answer(message, context):
        together.wait()
        return {"x": 1}

    with LocalGrid(app_of(answer), 3, workers=3) as grid:
        assert ask(grid, 0, 1, 2) == {k: {"x": 1} for k in range(3)}


def test_one_worker_is_the_caller_s_thread():
    seen = set()
    with LocalGrid(app_of(lambda m, c: seen.add(threading.current_thread()) or {"x": 1}), 3) as grid:
        ask(grid, 0, 1, 2)
    assert seen == {threading.current_thread()}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("threads", [1, 2])
def test_every_client_computes_with_the_threads_it_was_given(workers, threads):
    before = torch.get_num_threads()
    try:
        made = LocalGrid(
            app_of(lambda m, c: {"threads": torch.get_num_threads()}),
            4,
            workers=workers,
            threads_per_client=threads,
        )
        with made as grid:
            assert ask(grid, 0, 1, 2, 3) == {k: {"threads": threads} for k in range(4)}
    finally:
        torch.set_num_threads(before)


# -- what a client keeps -----------------------------------------------------------------------------------


def count(message, context):
    """Count how often this client was asked, in its own state."""
    config = message.content["config"]
    if config.get("clear"):
        context.state = RecordDict()
        return {"asked": 0}
    counter = context.state.setdefault("counter", MetricRecord({"asked": 0}))
    counter["asked"] += 1
    return {"asked": counter["asked"]}


@WORKERS
def test_a_client_s_state_lives_from_message_to_message_and_is_its_own(workers):
    with LocalGrid(app_of(count), 3, workers=workers) as grid:
        assert ask(grid, 0, 1) == {0: {"asked": 1}, 1: {"asked": 1}}
        assert ask(grid, 1, 2) == {1: {"asked": 2}, 2: {"asked": 1}}
        assert ask(grid, 0, 1, 2) == {0: {"asked": 2}, 1: {"asked": 3}, 2: {"asked": 2}}


def test_a_state_can_be_thrown_away():
    with LocalGrid(app_of(count), 1) as grid:
        ask(grid, 0)
        ask(grid, 0, clear=True)
        assert ask(grid, 0) == {0: {"asked": 1}}


def test_a_state_is_the_grid_s_and_not_the_process_s():
    for _ in range(2):
        with LocalGrid(app_of(count), 1) as grid:
            assert ask(grid, 0) == {0: {"asked": 1}}


# -- the rest of Flower's interface ------------------------------------------------------------------------


def test_it_is_a_grid():
    with LocalGrid(app_of(lambda m, c: {"run": c.run_id}), 3) as grid:
        assert isinstance(grid, Grid)
        assert list(grid.get_node_ids()) == nodes_of(0, 1, 2)
        assert [node.node_id for node in grid.get_nodes()] == nodes_of(0, 1, 2)
        grid.set_run(Run.create_empty(run_id=42))
        assert grid.run.run_id == 42
        assert ask(grid, 0) == {0: {"run": 42}}
        made = grid.create_message(RecordDict(), "query", FIRST_CLIENT_NODE, "3", ttl=60)
        assert (made.metadata.dst_node_id, made.metadata.group_id, made.metadata.ttl) == (2, "3", 60)


def test_clients_by_number_without_a_dictionary():
    with LocalGrid(app_of(lambda m, c: {}), 100_000) as grid:
        nodes = grid.client_nodes()
        assert len(nodes) == 100_000
        assert (nodes[0], nodes[99_999]) == (FIRST_CLIENT_NODE, FIRST_CLIENT_NODE + 99_999)
        assert 99_999 in nodes and 100_000 not in nodes and -1 not in nodes
        assert list(nodes)[:2] == [0, 1]
        with pytest.raises(KeyError):
            nodes[100_000]


@pytest.mark.parametrize("wrong", [{"num_clients": 0}, {"workers": 0}, {"threads_per_client": 0}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match=r"must each be at least 1$"):
        LocalGrid(app_of(lambda m, c: {}), **{"num_clients": 3, **wrong})
