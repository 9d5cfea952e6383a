"""The measures of requests in the ledger, over kills, nodes that are gone, and nodes that come back."""

from dataclasses import replace

import pytest
import torch
from flwr.app import Error, Message, RecordDict

from fedunlearn.clients.app import app
from fedunlearn.evaluation.histograms import BINS, Tally, Withheld
from fedunlearn.federation.compat import stamp
from fedunlearn.federation.local import LocalGrid
from fedunlearn.federation.payload import ModelState, unpack
from fedunlearn.federation.tallies import FORGOTTEN, tally_record
from fedunlearn.live.measurements import ATTEMPTS, RequestMeasures
from fedunlearn.live.notifications import ANSWER_SECONDS, Messenger
from fedunlearn.parts import Part, Parts
from fedunlearn.requests import Ledger
from fedunlearn.server.plan import RoundPlan
from fedunlearn.server.recovery import RequestProgress

BRANCH = "federation"
BEFORE, AFTER = ModelState(torch.zeros(2)), ModelState(torch.ones(2))
NAMES = ["forget_accuracy", "forget_loss", "mia_auc_binned"]
HIGH, LOW = (*(0,) * (BINS - 1), 10), (10, *(0,) * (BINS - 1))


def tally(percent, bins=HIGH):
    return Tally(10, 10.0 * percent, 1.0, bins)


class Nodes:
    """A grid whose nodes, 100 + client, tell what they are set to; ``silent`` ones do not answer.

    ``messages`` are those to whom weights were sent, and whose answer was waited for; ``reminded`` the others.
    """

    def __init__(self):
        LocalGrid(app, 1)  # lets this process make messages
        self.silent = set()
        self.broken = set()
        self.messages = []
        self.weights = []
        self.reminded = []
        self.pending = {}

    def push_messages(self, messages):
        for message in messages:
            assert message.metadata.message_type == FORGOTTEN and "arrays" not in message.content
            name = f"{len(self.reminded)}"
            stamp(message, name)
            self.reminded.append(message.metadata.dst_node_id - 100)
            self.pending[name] = message
            yield name

    def pull_messages(self, names):
        for name in names:
            client = self.pending[name].metadata.dst_node_id - 100
            if client in self.broken:
                yield Message(Error(0, "out of luck"), reply_to=self.pending[name])
            elif client not in self.silent:
                yield Message(RecordDict(), reply_to=self.pending[name])

    def send_and_receive(self, messages, *, timeout=None):
        for number, message in enumerate(messages):
            assert message.metadata.message_type == FORGOTTEN
            stamp(message, f"sent {number}")
            client = message.metadata.dst_node_id - 100
            self.messages.append(client)
            self.weights.append(unpack(message.content["arrays"]).vector)
            if client not in self.silent:
                yield Message(RecordDict({"tally": tally_record(tally(client))}), reply_to=message)


class Run:
    """A server's view of one federation; a new one with the same ledger is a server that was started again."""

    def __init__(self, ledger=None, grid=None):
        self.ledger = ledger or Ledger(":memory:")
        self.grid = grid or Nodes()
        self.passes = []
        self.there = {client: 100 + client for client in range(10)}
        self.now = 0.0
        self.messenger = Messenger("classification", self.held_out, timeout=5, clock=lambda: self.now)
        self.measures = RequestMeasures(self.ledger, BRANCH, self.messenger)

    def held_out(self, state):
        self.passes.append(state)
        return tally(50, LOW)

    def again(self):
        return Run(self.ledger, self.grid)

    def submit(self, *requests):
        for r in requests:
            self.ledger.submit(BRANCH, request_id=r.id, clients=r.clients)

    def note(self, plan, requests, tallies=(), *, accuracy=80.0, **options):
        self.measures.note(
            plan,
            requests,
            dict(tallies),
            BEFORE,
            {"validation-accuracy": 90.0},
            {"validation-accuracy": accuracy},
            **options,
        )

    def tell(self, round, requests, state=AFTER):
        self.measures.tell(round, requests, state, {"validation-accuracy": 70.0}, self.grid, self.there)

    def found(self, id_, stage):
        return self.ledger.measures(BRANCH, id_).get(stage)


def request(id_="r1", clients=(3,), unlearned=None, outcome=None, ended=None):
    return RequestProgress(id_, clients, 0, unlearned_round=unlearned, outcome=outcome, ended_round=ended)


def nulls(why):
    return {"values": dict.fromkeys(NAMES), "reasons": dict.fromkeys(NAMES, why)}


@pytest.fixture
def run():
    return Run()


# -- while the round is executed --------------------------------------------------------------------------


def test_before_the_step_is_what_the_client_sent_with_its_update(run):
    r = request(clients=(3, 4), unlearned=7)
    run.submit(r)
    run.note(RoundPlan(7, (), (3, 4), ("r1",)), [r], {3: tally(60), 4: Withheld("fewer than 5 examples")})
    assert run.found("r1", "before") == {
        "round": 6,
        "validation": {"accuracy": 90.0},
        "clients": {
            "3": {
                "values": {"forget_accuracy": 60.0, "forget_loss": 0.1, "mia_auc_binned": 100.0},
                "reasons": {},
            },
            "4": nulls("fewer than 5 examples"),
        },
        "told": [],
    }
    assert run.passes == [BEFORE], "once, by the weights the clients had"
    assert run.found("r1", "ended") is None
    assert run.grid.messages == [], "nobody is told of a step that is not saved"


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (
            RoundPlan(7, (), (3,), ("r1",), {3: 5}),
            "forgotten with a stored update, as its node was unreachable",
        ),
        (RoundPlan(7, (), (4,), ("r1",)), "never took part in training"),
        (RoundPlan(7, (), (3,), ("r1",)), "its node sent no tally"),
    ],
)
def test_a_client_that_sent_none_is_null_with_the_reason(run, plan, why):
    r = request(unlearned=7)
    run.submit(r)
    run.note(plan, [r])
    assert run.found("r1", "before")["clients"] == {"3": nulls(why)}


def test_a_client_that_an_earlier_step_has_forgotten_sent_none_for_that(run):
    earlier, r = request("r0", unlearned=5), request(clients=(3, 4), unlearned=7)
    run.submit(earlier, r)
    run.ledger.commit_plan(BRANCH, 1, RoundPlan(1, (3, 4)).to_dict())
    run.note(RoundPlan(7, (), (4,), ("r1",)), [earlier, r], {4: tally(60)})
    assert run.found("r1", "before")["clients"]["3"] == nulls("had already been forgotten")


def test_a_step_that_was_rolled_back_was_measured_before_all_the_same(run):
    r = request(outcome="refused", ended=7)
    run.submit(r)
    run.note(RoundPlan(7, (), (3,), ("r1",)), [r], {3: tally(60)})
    assert run.found("r1", "before")["clients"]["3"]["values"]["forget_accuracy"] == 60.0
    assert run.found("r1", "ended") is None
    run.tell(7, [r])
    assert run.grid.messages == [], "nothing has been forgotten"


def test_a_request_that_was_put_off_has_no_stage(run):
    r = request()
    run.submit(r)
    run.note(RoundPlan(7, (), (3,), ("r1",)), [r], {3: tally(60)})
    assert run.ledger.measures(BRANCH, "r1") == {}


def test_of_several_rounds_the_first_is_measured_before_and_no_other(run):
    r = request()
    run.submit(r)
    first = RoundPlan(7, (), (3,), ("r1",), completes=False)
    run.note(first, [replace(r, steps=1)], {3: tally(60)})
    before = run.found("r1", "before")
    assert (before["round"], before["clients"]["3"]["values"]["forget_accuracy"]) == (6, 60.0)
    run.note(replace(first, round=8, step=1), [replace(r, steps=2)], {3: tally(10)})
    run.note(
        replace(first, round=9, step=2, completes=True),
        [replace(r, steps=2, unlearned_round=9)],
        {3: tally(5)},
    )
    assert run.found("r1", "before") == before
    run.note(replace(first, round=10), [replace(r, steps=1)], {3: tally(40)})
    assert run.found("r1", "before")["round"] == 9, "begun anew, it is measured anew"


def test_at_its_end_the_global_model_is_on_record_and_nobody_is_asked(run):
    r = request(unlearned=7, outcome="recovered", ended=9)
    run.submit(r)
    run.note(RoundPlan(9, (0, 1)), [r], accuracy=88.0)
    assert run.found("r1", "ended") == {
        "round": 9,
        "validation": {"accuracy": 88.0},
        "clients": {"3": nulls("a node is asked about forgotten data only once, after the step")},
        "told": [],
    }
    assert run.found("r1", "before") is None
    assert run.passes == []


def test_a_round_without_news_costs_nothing(run):
    r = request(unlearned=7, outcome="recovered", ended=9)
    run.ledger = None
    run.note(RoundPlan(10, (0, 1)), [r])


def test_executed_again_a_round_is_noted_again(run):
    r = request(unlearned=7)
    run.submit(r)
    plan = RoundPlan(7, (), (3,), ("r1",))
    run.note(plan, [r], {3: tally(60)})
    first = run.found("r1", "before")
    run.again().note(plan, [r], {3: tally(60)})
    assert run.found("r1", "before") == first


# -- once it is saved -------------------------------------------------------------------------------------


def test_forgotten_nodes_are_told_and_measure_the_new_weights(run):
    one, two = request("r1", (3, 4), unlearned=7), request("r2", (5,), unlearned=7)
    run.submit(one, two)
    run.tell(7, [one, two])
    document = run.found("r1", "unlearned")
    assert (document["round"], document["validation"], document["told"]) == (7, {"accuracy": 70.0}, [3, 4])
    assert document["clients"]["3"]["values"]["forget_accuracy"] == 3.0
    assert set(document["clients"]) == {"3", "4"}
    assert run.found("r2", "unlearned")["told"] == [5]
    assert run.grid.messages == [3, 4, 5], "in one exchange"
    assert all(weights.equal(AFTER.vector) for weights in run.grid.weights)
    run.tell(8, [one, two])
    assert run.grid.messages == [3, 4, 5], "once"


def test_a_server_that_died_before_it_told_tells(run):
    r = request(unlearned=7)
    run.submit(r)
    run.again().tell(7, [r])
    assert run.grid.messages == [3]
    run.again().tell(8, [r])
    assert run.grid.messages == [3], "and one that comes after it knows"


def test_every_server_reminds_the_nodes_once_and_waits_for_nobody(run):
    """What a node remembers is of one run, and every server has a run of its own."""
    one, two = request("r1", (3, 4), unlearned=7), request("r2", (5,), unlearned=7)
    run.submit(one, two)
    run.tell(7, [one, two])
    document = run.found("r1", "unlearned")
    later = run.again()
    for round in range(8, 12):
        later.tell(round, [one, two], BEFORE)
    assert run.grid.reminded == [3, 4, 5] and run.grid.messages == [3, 4, 5]
    assert run.found("r1", "unlearned") == document, "what was measured stays"


def test_in_a_simulation_nobody_has_forgotten_it(run):
    r = request(unlearned=7)
    run.submit(r)
    run.tell(7, [r])
    run.grid.client_nodes = lambda: run.there
    run.again().tell(8, [r])
    assert run.grid.reminded == []


def test_a_node_that_was_gone_is_told_when_it_comes_back_and_measures_nothing(run):
    r = request(clients=(3, 4), unlearned=7)
    run.submit(r)
    del run.there[4]
    run.tell(7, [r])
    document = run.found("r1", "unlearned")
    assert document["told"] == [3]
    assert document["clients"]["4"] == nulls("its node is gone")
    for round in range(8, 8 + 2 * ATTEMPTS):
        run.tell(round, [r])
    assert run.grid.messages == [3] and run.grid.reminded == [], "nobody is asked who is not there"
    run.there[4] = 104
    run.tell(20, [r], BEFORE)
    run.tell(21, [r], BEFORE)
    assert run.grid.messages == [3] and run.grid.reminded == [4]
    assert run.found("r1", "unlearned") == {**document, "told": [3, 4]}
    run.tell(22, [r], BEFORE)
    assert run.grid.reminded == [4]


def test_a_node_that_never_answers_is_waited_for_once_and_reminded_now_and_then(run):
    r = request(unlearned=7)
    run.submit(r)
    run.grid.silent = {3}
    for round in range(7, 27):
        run.tell(round, [r])
        run.now += ANSWER_SECONDS / 4
    assert run.grid.messages == [3]
    assert run.grid.reminded == [3] * (ATTEMPTS - 1)
    assert run.found("r1", "unlearned")["clients"]["3"] == nulls("its node did not answer within 5 s")
    assert run.found("r1", "unlearned")["told"] == []


def test_a_node_that_cannot_be_reminded_is_tried_again(run):
    r = request(unlearned=7)
    run.submit(r)
    run.grid.silent = run.grid.broken = {3}
    run.tell(7, [r])
    run.tell(8, [r])
    run.grid.silent = run.grid.broken = set()
    run.tell(9, [r])
    run.tell(10, [r])
    assert run.found("r1", "unlearned")["told"] == [3]


def test_time_in_which_a_node_was_gone_does_not_count_as_an_attempt(run):
    r = request(unlearned=7)
    run.submit(r)
    del run.there[3]
    run.tell(7, [r])
    run.there[3] = 103
    run.grid.silent = {3}
    for round in range(8, 18):
        run.tell(round, [r])
        run.now += ANSWER_SECONDS
    assert run.grid.messages == [] and run.grid.reminded == [3] * ATTEMPTS


def test_a_client_of_two_requests_that_is_told_for_one_is_told_for_both(run):
    one, two = request("r1", (3,), unlearned=7), request("r2", (3, 4), unlearned=8)
    run.submit(one, two)
    run.grid.silent = {3}
    run.tell(7, [one])
    run.grid.silent = set()
    run.tell(8, [one, two])
    assert run.found("r1", "unlearned")["told"] == [3]
    assert run.found("r2", "unlearned")["told"] == [3, 4]


# -- parts of clients' data ---------------------------------------------------------------------------------

PARTS = Parts(
    [Part(10, 3, (0, 1)), Part(11, 4, None, (3,)), Part(12, 5, None, (3,)), Part(13, 6, None, (3,))]
)
NOT_FOR_PARTS = "its client has been forgotten entirely and is not asked about parts of its data"


def test_of_parts_each_is_null_for_its_own_reason_and_forgotten_clients_are_not_asked(run, monkeypatch):
    """Client 3 is forgotten in the same step, client 4 before it; client 5 has not trained, client 6 goes on."""
    whole = request("r1", (4,), unlearned=2, outcome="recovered", ended=2)
    both, part = request("r2", (3,), unlearned=3), request("r3", (10, 11, 12, 13), unlearned=3)
    run.submit(whole, both, part)
    run.ledger.commit_plan(BRANCH, 1, RoundPlan(1, (3, 4, 6)).to_dict())
    plan = RoundPlan(3, (), (3, 13), ("r2", "r3"))
    run.ledger.commit_plan(BRANCH, 3, plan.to_dict())
    known = [whole, both, replace(part, outcome="recovered", ended_round=3)]
    run.note(plan, known, {3: tally(60), 13: tally(70)}, parts=PARTS)
    before = run.found("r3", "before")["clients"]
    assert {number: found["reasons"].get("forget_loss") for number, found in before.items()} == {
        "10": "forgotten in this step with all data of its client and not measured separately",
        "11": "had already been forgotten",
        "12": "never took part in training",
        "13": None,
    }
    assert before["13"]["values"]["forget_accuracy"] == 70.0

    asked = []

    def of_parts(grid, nodes, assignments, state):
        asked.extend(assignments)
        return run.messenger.measures(dict.fromkeys(assignments, tally(20)), state)

    monkeypatch.setattr(run.messenger, "of_parts", of_parts)
    run.measures.tell(3, known, AFTER, {}, run.grid, run.there, parts=PARTS)
    assert asked == [12, 13] and run.grid.messages == [3, 4]
    after = run.found("r3", "unlearned")["clients"]
    assert after["10"] == after["11"] == nulls(NOT_FOR_PARTS)
    assert after["13"]["values"]["forget_accuracy"] == 20.0
    ended = run.found("r3", "ended")["clients"]
    assert ended["10"] == ended["11"] == nulls(NOT_FOR_PARTS)
    assert ended["13"] == nulls("a node is asked about forgotten data only once, after the step")
