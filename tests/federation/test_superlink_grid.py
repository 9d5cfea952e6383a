"""A SuperLink's replies, one by one: no node stops the server, holds it up, or speaks for another."""

import json
from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.serverapp import Grid
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.superlink.grid.http_grid import HttpGrid

from fedunlearn.errors import RunError
from fedunlearn.federation.local import FIRST_CLIENT_NODE, LocalGrid
from fedunlearn.federation.payload import pack
from fedunlearn.federation.superlink_grid import (
    LONGEST_UPLOAD,
    MOST_OBJECTS,
    SPARE_BYTES,
    SuperLinkGrid,
    _put_together,
    superlink_grid,
)
from fedunlearn.server.messages import find_clients
from fedunlearn.strategies.puf import PUF
from fedunlearn.strategies.retrain import Retrain
from tests.federation.contributions import bits
from tests.federation.superlink import SuperLink, Uploaded
from tests.server.tiny import NUM_CLIENTS, Clients, Federation, initial_state, settings

VICTIM = FIRST_CLIENT_NODE + 4
OTHERS = [0, 1, 2, 3, 5]


class Clock:
    def __init__(self):
        self.now = 0.0
        self.meanwhile = lambda: None

    def __call__(self):
        return self.now

    def pause(self, seconds):
        self.now += seconds
        self.meanwhile()


def federation(spoil=lambda message, uploaded: None, *, only="train", **changes):
    """Return a federation behind a SuperLink of which client 4's node spoils its replies."""

    def spoilt(message, uploaded):
        if message.metadata.dst_node_id == VICTIM and message.metadata.message_type.startswith(only):
            spoil(message, uploaded)

    made = Federation(settings=settings(quorum=0.5), start=initial_state(buffers=True), **changes)
    link, clock = SuperLink(made.clients.app, NUM_CLIENTS, spoil=spoilt), Clock()
    made.grid = SuperLinkGrid(link, clock=clock, pause=clock.pause)
    made.link, made.clock = link, clock
    return made


def objects_of(uploaded, kind):
    """Return the names of a reply's objects of one of Flower's types."""
    return [name for name, content in uploaded.objects.items() if content.startswith(kind.encode() + b" ")]


def test_it_is_the_same_federation_as_without_a_superlink():
    made = federation()
    made.submit("r1", (2,), 1)
    made.run(PUF, 4)
    local = Federation(settings=settings(quorum=0.5), start=initial_state(buffers=True))
    local.submit("r1", (2,), 1)
    local.run(PUF, 4)
    for t in (1, 2, 3, 4):
        assert bits(made.weights(t)) == bits(local.weights(t))
        assert made.report(t).failed == {}
    assert made.clock.now == 0, "nobody is waited for"
    assert len(made.link.confirmed) == len(set(made.link.pulled)) == 6 + 6 + 1 + 5 + 5


def cut(kind, change):
    """Return what changes the bytes of a reply's objects of one type."""

    def spoil(message, uploaded):
        for name in objects_of(uploaded, kind):
            uploaded.objects[name] = change(uploaded.objects[name])

    return spoil


def of_body(change):
    """Return a change of an object's body, with a head that agrees with it: as a SuperLink lets it pass."""

    def changed(content):
        head, body = content.split(b"\x00", 1)
        kind, children, _ = head.split(b" ")
        body = change(body)
        return kind + b" " + children + b" " + str(len(body)).encode() + b"\x00" + body

    return changed


def without(name):
    return of_body(lambda body: json.dumps({k: v for k, v in json.loads(body).items() if k != name}).encode())


def telling(**fields):
    return of_body(lambda body: json.dumps({**json.loads(body), **fields}).encode())


UNUSABLE = {
    "an array that is no JSON": cut("Array", of_body(lambda body: b"{")),
    "an array that is nested deep": cut("Array", of_body(lambda body: b"[" * 100_000)),
    "an array without a shape": cut("Array", without("shape")),
    "an array of a shape that is none": cut("Array", telling(shape=7)),
    "an array of a dtype that is none": cut("Array", telling(dtype=[1])),
    "an array of a piece that is not there": cut("Array", telling(arraychunk_ids=[9])),
    "a record that is a list": cut("ArrayRecord", of_body(lambda body: b"[1]")),
    "metrics that are no protobuf": cut("MetricRecord", of_body(lambda body: b"\xff\xff\xff")),
    "no text": cut("RecordDict", of_body(lambda body: b"\xff\xfe")),
    "a message that is none": cut("Message", of_body(lambda body: b"\x07")),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_reply_that_cannot_be_put_together_is_its_node_s_fault_and_no_other_is_lost(name):
    made = federation(UNUSABLE[name]).run(Retrain, 2)
    absent = Federation(settings=settings(quorum=0.5), start=initial_state(buffers=True))
    absent.run(Retrain, 2, excluded=[4])
    for t in (1, 2):
        assert list(made.report(t).failed) == [4]
        assert made.report(t).failed[4].startswith("refused: the reply cannot be put together (")
        assert bits(made.weights(t)) == bits(absent.weights(t))
    assert made.clock.now == 0


@pytest.mark.parametrize(
    "change", [lambda content: b"Massage" + content[7:], lambda content: b"", lambda content: content[:-1]]
)
def test_an_object_that_no_superlink_takes_is_one_that_never_comes(change):
    made = federation(cut("Message", change))
    made.grid.send_and_receive = with_timeout(made.grid.send_and_receive, 60)
    made.run(Retrain, 1)
    assert made.report(1).failed == {4: "did not answer"}


def test_something_that_is_no_message_is_refused():
    def spoil(message, uploaded):
        record = next(iter(objects_of(uploaded, "RecordDict")))
        uploaded.proto.metadata.message_id = record

    made = federation(spoil).run(Retrain, 1)
    assert made.report(1).failed == {
        4: "refused: the reply cannot be put together (it is of type RecordDict, not a message)"
    }


def test_a_reply_is_from_whom_the_superlink_says_whatever_it_says_itself():
    """Client 4 answers in client 1's name: the SuperLink knows better, and looks at nothing but its own record."""

    def spoil(message, uploaded):
        reply = Uploaded.of(forged(message, uploaded))
        own = uploaded.proto
        own.metadata.message_id = reply.proto.metadata.message_id
        uploaded.tree, uploaded.objects = reply.tree, reply.objects

    def forged(message, uploaded):
        reply = _put_together(uploaded.proto, uploaded.objects)
        reply.metadata.__dict__.update(_src_node_id=FIRST_CLIENT_NODE + 1, _reply_to_message_id="message 8")
        return reply

    made = federation(spoil).run(Retrain, 1)
    honest = Federation(settings=settings(quorum=0.5), start=initial_state(buffers=True)).run(Retrain, 1)
    assert made.report(1).failed == {}
    assert bits(made.weights(1)) == bits(honest.weights(1)), "each counts once, and for itself"


def held_back(message, uploaded):
    """Announce objects, and never upload them."""
    for name in objects_of(uploaded, "ArrayChunk"):
        uploaded.objects[name] = None


def test_objects_that_are_held_back_hold_up_nobody_beyond_the_round_s_time():
    made = federation(held_back)
    made.grid.send_and_receive = with_timeout(made.grid.send_and_receive, 60)
    made.run(Retrain, 1)
    assert made.report(1).failed == {4: "did not answer"}
    assert sorted(made.report(1).losses) == OTHERS
    assert 60 <= made.clock.now < 66


def with_timeout(send, seconds):
    return lambda messages, *, timeout=None: send(messages, timeout=seconds)


def test_one_whose_answer_nobody_waits_for_is_given_up_in_the_end():
    made = federation(held_back)
    (name,) = made.grid.push_messages([Message(asked(), VICTIM, "train")])
    assert made.grid.pull_messages([name]) == []
    made.clock.now = LONGEST_UPLOAD
    (reply,) = made.grid.pull_messages([name])
    assert reply.metadata.src_node_id == VICTIM
    assert reply.error.reason == "refused: the reply cannot be put together (its upload was never completed)"
    assert made.grid.pull_messages([name]) == []


def asked():
    config = ConfigRecord({"round": 1, "lr": 0.1, "seed": 1})
    return RecordDict({"arrays": pack(initial_state()), "config": config})


def test_a_slow_upload_is_waited_for_and_fetched_once():
    late = {}

    def slow(message, uploaded):
        for name in objects_of(uploaded, "ArrayChunk"):
            late[name] = uploaded.objects[name]
            uploaded.objects[name] = None

    made = federation(slow)

    def meanwhile():
        if made.clock.now >= 9:
            for name, content in late.items():
                made.link.upload(name, content)

    made.clock.meanwhile = meanwhile
    made.run(Retrain, 1)
    honest = Federation(settings=settings(quorum=0.5), start=initial_state(buffers=True)).run(Retrain, 1)
    assert made.report(1).failed == {}
    assert bits(made.weights(1)) == bits(honest.weights(1))
    assert made.clock.now == 9
    assert len(made.link.pulled) == len(set(made.link.pulled)), "the SuperLink hands over each reply once"


def test_a_reply_that_is_too_large_is_refused_before_it_is_put_together():
    made = federation(cut("ArrayChunk", of_body(lambda body: body + bytes(2 * SPARE_BYTES)))).run(Retrain, 1)
    (why,) = made.report(1).failed.values()
    assert why.startswith("refused: the reply cannot be put together (of ")
    assert why.endswith("bytes or more, must be at most 1048620)")


def test_so_is_one_of_very_many_objects():
    def spoil(message, uploaded):
        uploaded.tree.children.extend(ObjectTree(object_id=f"{n}") for n in range(MOST_OBJECTS))

    made = federation(spoil).run(Retrain, 1)
    assert made.report(1).failed == {
        4: f"refused: the reply cannot be put together (of more than {MOST_OBJECTS} objects)"
    }


def test_an_object_that_will_never_come():
    made = federation(lambda message, uploaded: uploaded.objects.clear()).run(Retrain, 1)
    assert made.report(1).failed == {
        4: "refused: the reply cannot be put together (some of it was never uploaded)"
    }


def test_a_node_that_has_just_left_is_one_that_does_not_answer():
    made = federation()
    nodes = find_clients(made.grid)
    made.link.absent = {VICTIM}
    made.grid.client_nodes = lambda: nodes
    made.run(Retrain, 1)
    assert made.report(1).failed == {4: "did not answer"}
    assert made.grid.push_messages([]) == [] and made.grid.pull_messages([None]) == []


def test_messages_that_are_too_large_to_be_sent_are_answered_by_nobody():
    """Flower says so by returning no ids at all."""
    grid = SuperLinkGrid(SimpleNamespace(push_messages=lambda messages: []))
    messages = [Message(asked(), FIRST_CLIENT_NODE + k, "train") for k in range(2)]
    assert grid.push_messages(messages) == [None, None]
    assert grid.send_and_receive(messages) == []


def test_a_node_whose_answer_to_whom_it_serves_is_spoilt_takes_no_part():
    made = federation(UNUSABLE["no text"], only="query")
    assert sorted(find_clients(made.grid)) == OTHERS
    made = federation(lambda message, uploaded: uploaded.objects.clear(), only="query")
    made.link.num_clients = 1
    made.link.absent = set(range(FIRST_CLIENT_NODE, FIRST_CLIENT_NODE + NUM_CLIENTS)) - {VICTIM}
    with pytest.raises(RunError, match="no node of the federation answered"):
        find_clients(made.grid)


def test_only_flower_s_own_grid_is_replaced():
    grid = LocalGrid(Clients().app, 2)
    assert superlink_grid(grid) is grid
    flower_s = HttpGrid(token="x", insecure=True)
    assert isinstance(superlink_grid(flower_s), SuperLinkGrid)
    assert isinstance(superlink_grid(flower_s), Grid)


def test_flower_still_has_what_is_used_of_its_internals():
    """By name: a new release that renames it is found here."""
    made = HttpGrid(token="x", insecure=True)
    assert hasattr(type(made), "_runtime_client") and made.node.node_id
    for call in ("PullMessages", "PullObject", "ConfirmMessageReceived"):
        assert hasattr(RuntimeHttpClient, call)
