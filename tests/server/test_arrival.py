"""Answers come in any order, from nodes with random names: neither changes a bit."""

import pytest
from flwr.app import Message, RecordDict

from fedunlearn.errors import RunError
from fedunlearn.federation.compat import error_reply
from fedunlearn.federation.local import FIRST_CLIENT_NODE, LocalGrid
from fedunlearn.server.messages import find_clients
from fedunlearn.server.round import Needs
from fedunlearn.strategies.base import UnlearningStrategy
from fedunlearn.strategies.puf import PUF
from fedunlearn.strategies.retrain import Retrain
from tests.federation.contributions import bits
from tests.server.tiny import NUM_CLIENTS, Clients, Federation, initial_state, settings


class Individual(UnlearningStrategy):
    """Federated averaging that takes the updates one by one, in the order it gets them."""

    @classmethod
    def needs(cls, method):
        return Needs(individual=True)

    seen = ()

    def combine(self, round):
        self.seen = [c.client for c in round.updates]
        total = sum(c.num_examples for c in round.updates)
        return round.w + sum(c.num_examples * c.delta for c in round.updates) / total


class Wrapped:
    """A grid that is another one but for what a subclass does to the replies."""

    def __init__(self, grid):
        self._grid = grid

    def __getattr__(self, name):
        return getattr(self._grid, name)

    def send_and_receive(self, messages, *, timeout=None):
        return self.spoil(list(self._grid.send_and_receive(messages, timeout=timeout)))

    def spoil(self, replies):
        return replies


class Reversed(Wrapped):
    """Hands over the last reply first."""

    def spoil(self, replies):
        return replies[::-1]


class Repeating(Wrapped):
    """Hands over every reply twice."""

    def spoil(self, replies):
        return replies + replies


def same(one, other, rounds):
    for t in range(1, rounds + 1):
        assert bits(one.weights(t)) == bits(other.weights(t))
        assert one.states[t].buffers.keys() == other.states[t].buffers.keys()
        for name, buffer in one.states[t].buffers.items():
            assert bits(buffer) == bits(other.states[t].buffers[name])


def run(kind, wrap, **options):
    made = Federation(start=initial_state(buffers=True))
    made.submit("r1", (2, 4), 2)
    made.grid = wrap(LocalGrid(made.clients.app, NUM_CLIENTS))
    return made.run(kind, 4, **options)


@pytest.mark.parametrize(("kind", "options"), [(PUF, {"mode": "regular"}), (PUF, {}), (Individual, {})])
def test_the_order_of_arrival_changes_nothing(kind, options):
    one, other = run(kind, Wrapped, **options), run(kind, Reversed, **options)
    assert one.clients.asked == other.clients.asked
    same(one, other, 4)
    for t in (1, 2, 3, 4):
        assert list(one.report(t).losses.items()) == list(other.report(t).losses.items())


def test_a_method_that_needs_single_updates_gets_them_in_client_order():
    ran = run(Individual, Reversed)
    assert ran.strategy.seen == [0, 1, 3, 5]


def test_what_is_to_be_forgotten_comes_one_by_one_and_in_client_order_too():
    seen = []

    class Watching(PUF):
        def combine(self, round):
            seen.append([c.client for c in round.forgetting])
            return super().combine(round)

    run(Watching, Reversed, mode="regular")
    assert seen == [[], [], [2, 4], []]


def test_single_updates_and_their_sum_average_the_same_buffers():
    individual = run(Individual, Wrapped).states[1]
    summed = run(Retrain, Wrapped).states[1]
    assert all(bits(individual.buffers[name]) == bits(summed.buffers[name]) for name in summed.buffers)


def test_an_answer_counts_once():
    same(run(PUF, Wrapped, mode="regular"), run(PUF, Repeating, mode="regular"), 4)


# -- which node serves which client ----------------------------------------------------------------------


class Renamed(Clients):
    """Nodes that serve other clients than their number says."""

    def number(self, context):
        return (5 * super().number(context) + 2) % NUM_CLIENTS


class Asking(Wrapped):
    """A grid that does not know which node serves which client, as in a deployment."""

    def __getattr__(self, name):
        if name == "client_nodes":
            raise AttributeError(name)
        return super().__getattr__(name)


def test_a_grid_that_does_not_know_its_clients_is_asked_node_by_node():
    grid = Asking(LocalGrid(Renamed().app, NUM_CLIENTS))
    assert not hasattr(grid, "client_nodes")
    nodes = find_clients(grid)
    assert nodes == {(5 * i + 2) % NUM_CLIENTS: FIRST_CLIENT_NODE + i for i in range(NUM_CLIENTS)}


def test_the_federation_is_the_same_whichever_node_serves_a_client():
    asked = Federation(start=initial_state(buffers=True), clients=Renamed())
    asked.submit("r1", (2, 4), 2)
    asked.grid = Asking(LocalGrid(asked.clients.app, NUM_CLIENTS))
    asked.run(PUF, 4)
    same(run(PUF, Wrapped), asked, 4)


def test_two_nodes_of_one_client_are_refused():
    clients = Clients()
    clients.number = lambda context: context.node_id // 3
    with pytest.raises(RunError, match=r"two nodes say that they serve client 1: 3 and another"):
        find_clients(Asking(LocalGrid(clients.app, NUM_CLIENTS)))


class Mute(Asking):
    """Some nodes cannot be asked."""

    silent = (0,)

    def spoil(self, replies):
        return [
            error_reply(Message(RecordDict(), r.metadata.src_node_id, "query"), "broken")
            if i in self.silent
            else r
            for i, r in enumerate(replies)
        ]


def test_a_node_that_cannot_say_whom_it_serves_is_left_out():
    assert sorted(find_clients(Mute(LocalGrid(Clients().app, NUM_CLIENTS)))) == [1, 2, 3, 4, 5]


def test_a_federation_without_any_answer_is_refused():
    grid = Mute(LocalGrid(Clients().app, NUM_CLIENTS))
    grid.silent = range(NUM_CLIENTS)
    with pytest.raises(RunError, match="no node of the federation answered"):
        find_clients(grid)


class Smaller(Asking):
    """The node of client 0 is not there."""

    def get_node_ids(self):
        return range(FIRST_CLIENT_NODE + 1, FIRST_CLIENT_NODE + NUM_CLIENTS)


def test_a_client_without_a_node_has_failed():
    ran = Federation(settings=settings(quorum=0.5))
    ran.grid = Smaller(LocalGrid(ran.clients.app, NUM_CLIENTS))
    ran.run(Retrain, 1)
    assert ran.report(1).failed == {0: "did not answer"}
    without = Federation().run(Retrain, 1, excluded=[0])
    assert ran.clients.asked == without.clients.asked
    assert bits(ran.weights(1)) == bits(without.weights(1))
