"""Who serves which client: asked once, held against the roster, and never believed twice."""

import logging

import pytest

from fedunlearn.federation.grid import FIRST_CLIENT_NODE
from fedunlearn.live.nodes import ANSWER_SECONDS, ASK_AGAIN_SECONDS, Nodes
from tests.live.living import Clock, Roaming
from tests.server.tiny import Clients

NUM = 4


class Liars(Clients):
    """Clients that say they are who ``says`` says; None: they answer with an error."""

    says: dict = {}  # noqa: RUF012

    def number(self, context):
        number = super().number(context)
        answer = self.says.get(number, number)
        if answer is None:
            raise OSError("not yet")
        return answer


class Entries(dict):
    """A roster: node → client."""

    def client_of_node(self, node_id):
        return self.get(node_id)


def node_of(client):
    return FIRST_CLIENT_NODE + client


def federation(says=(), roster=None):
    clients = Liars()
    clients.says = dict(says)
    clock = Clock()
    grid = Roaming(clients, NUM)
    return Nodes(NUM, roster, clock=clock), grid, clock


def asked(grid):
    """Return how often nodes have been asked since the last time."""
    count, grid.pushed = getattr(grid, "pushed", 0), 0
    return count


@pytest.fixture(autouse=True)
def _count(monkeypatch):
    original = Roaming.push_messages

    def counted(self, messages):
        messages = list(messages)
        self.pushed = getattr(self, "pushed", 0) + len(messages)
        return original(self, messages)

    monkeypatch.setattr(Roaming, "push_messages", counted)


def settled(nodes, grid):
    """Ask, and read the answers."""
    nodes.refresh(grid)
    nodes.refresh(grid)
    return dict(nodes.there)


EVERYBODY = {k: node_of(k) for k in range(NUM)}


def test_each_is_asked_once_and_nobody_waits_for_the_answer():
    nodes, grid, _ = federation()
    nodes.refresh(grid)
    assert nodes.answering
    assert dict(nodes.there) == {}
    nodes.refresh(grid)
    assert dict(nodes.there) == EVERYBODY
    assert not nodes.answering
    for _ in range(3):
        nodes.refresh(grid)
    assert asked(grid) == NUM


def test_they_come_and_go_without_being_asked_again():
    nodes, grid, _ = federation()
    settled(nodes, grid)
    grid.present.discard(2)
    nodes.refresh(grid)
    assert nodes.absent == {2}
    grid.present.add(2)
    nodes.refresh(grid)
    assert nodes.absent == frozenset()
    assert asked(grid) == NUM


def test_one_that_comes_later_is_asked_then():
    nodes, grid, _ = federation()
    grid.present.discard(2)
    assert settled(nodes, grid) == {k: node_of(k) for k in (0, 1, 3)}
    grid.present.add(2)
    assert settled(nodes, grid) == EVERYBODY


def test_one_that_cannot_say_is_asked_again_after_a_while():
    nodes, grid, clock = federation({2: None})
    settled(nodes, grid)
    assert asked(grid) == NUM
    nodes.refresh(grid)
    assert asked(grid) == 0
    clock.now += ASK_AGAIN_SECONDS
    grid._inner._app = Clients().app
    assert settled(nodes, grid) == EVERYBODY
    assert asked(grid) == 1


def test_one_that_never_answers_is_asked_again(monkeypatch):
    nodes, grid, clock = federation()
    monkeypatch.setattr(Roaming, "pull_messages", lambda self, ids: [])
    nodes.refresh(grid)
    clock.now += ANSWER_SECONDS + 1
    nodes.refresh(grid)
    assert asked(grid) == 2 * NUM


def test_two_that_claim_one_client(caplog):
    nodes, grid, _ = federation({2: 1})
    with caplog.at_level(logging.WARNING, "flwr"):
        there = settled(nodes, grid)
    assert there == {0: node_of(0), 1: node_of(1), 3: node_of(3)}
    assert f"node {node_of(2)} is refused: it says that it serves client 1, which node" in caplog.text


@pytest.mark.parametrize("claim", [NUM, -1])
def test_a_client_that_there_is_not(claim, caplog):
    nodes, grid, _ = federation({2: claim})
    assert 2 not in settled(nodes, grid)
    assert f"says that it serves client {claim}; clients are 0 to 3" in caplog.text


def test_the_roster_decides(caplog):
    roster = Entries({node_of(0): 0, node_of(1): 3, node_of(3): 3})
    nodes, grid, _ = federation({}, roster)
    assert settled(nodes, grid) == {0: node_of(0), 3: node_of(3)}
    assert f"node {node_of(1)} is refused: it says that it serves client 1; the roster says 3" in caplog.text
    assert (
        f"node {node_of(2)} is refused: it says that it serves client 2, but is not in the roster"
        in caplog.text
    )


def test_a_liar_does_not_get_anothers_place():
    """It claims a client whose own node is not there: without the roster it would be believed."""
    for roster, believed in ((None, True), (Entries({node_of(k): k for k in range(NUM)}), False)):
        nodes, grid, _ = federation({2: 1}, roster)
        grid.present.discard(1)
        assert (settled(nodes, grid).get(1) == node_of(2)) == believed


def test_an_engine_that_knows_is_not_asked():
    nodes, grid, _ = federation()
    nodes.refresh(grid._inner)
    assert dict(nodes.there) == EVERYBODY
    assert nodes.absent == frozenset()


def test_an_answer_in_another_node_s_name_is_not_its_answer(monkeypatch):
    """Client 3's node answers what client 2's was asked; then that one answers itself."""
    nodes, grid, _ = federation()
    pull = Roaming.pull_messages

    def forged(self, names):
        replies = list(pull(self, names))
        for reply in replies:
            if reply.metadata.src_node_id == node_of(2):
                reply.metadata.__dict__["_src_node_id"] = node_of(3)
        return replies

    monkeypatch.setattr(Roaming, "pull_messages", forged)
    assert settled(nodes, grid) == {k: node_of(k) for k in (0, 1, 3)}
    assert nodes.answering, "its own answer may still come"
