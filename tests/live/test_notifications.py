"""Telling nodes that they have been forgotten, whether they are there or not."""

import json
from types import SimpleNamespace

import pytest
import torch
from flwr.app import Message, RecordDict

from fedunlearn import workspace
from fedunlearn.clients.app import app
from fedunlearn.evaluation.histograms import Withheld, forget_measures, membership_auc, tally_of
from fedunlearn.evaluation.outputs import SplitOutputs, predict
from fedunlearn.federation.answers import ASSIGNMENT, NUMBER
from fedunlearn.federation.local import FIRST_CLIENT_NODE, LocalGrid
from fedunlearn.federation.payload import ModelState
from fedunlearn.federation.tallies import FORGOTTEN
from fedunlearn.live.evaluation import ServerFileEvaluation
from fedunlearn.live.notifications import Messenger, stage
from fedunlearn.parts import Assignment, Part
from tests.clients.experiment import write

SEED = 1
NAMES = ["forget_accuracy", "forget_loss", "mia_auc_binned"]


class Place:
    """A federation, its server's validation data, and weights."""

    def __init__(self, folder, client_app=app, grid=LocalGrid):
        self.path, self.experiment = write(folder)
        self.data = workspace.data_of(self.experiment, SEED)
        self.grid = grid(client_app, 5, run_config={"experiment": str(self.path), "seed": SEED})
        self.nodes = {client: FIRST_CLIENT_NODE + client for client in range(5)}
        self.model = workspace.new_model(self.experiment, self.data, 5)
        self.state = ModelState(self.model.vector, self.model.buffers())
        evaluation = ServerFileEvaluation(self.experiment, self.data)
        self.messenger = Messenger("classification", evaluation.held_out, timeout=60)

    def tally(self, images, labels):
        return tally_of(SplitOutputs(predict(self.model.module, images), labels))

    def expected(self, client):
        held_out = self.tally(self.data.validation_images, self.data.validation_labels)
        return forget_measures("classification", self.tally(*self.data.client(client)), held_out)

    def tell(self, *clients, nodes=None):
        return self.messenger.forgotten(
            self.grid, self.nodes if nodes is None else nodes, clients, self.state
        )


def test_nodes_are_told_and_tell_what_the_weights_know_of_them(tmp_path):
    place = Place(tmp_path)
    found = place.tell(3, 1)
    assert list(found) == [1, 3]
    for client in (1, 3):
        assert dict(found[client]) == pytest.approx(dict(place.expected(client)), rel=1e-6)
        assert found[client].reason is None
        assert 0 < found[client]["mia_auc_binned"] < 100
    assert dict(found[1]) != dict(found[3])
    assert place.messenger.told == {1, 3}


def test_the_attack_compares_with_unseen_data_by_the_same_weights(tmp_path):
    place = Place(tmp_path)
    seen = []

    def held_out(state):
        seen.append(state.vector.clone())
        return place.tally(place.data.validation_images, place.data.validation_labels)

    place.messenger = Messenger("classification", held_out, timeout=60)
    found = place.tell(2)
    (vector,) = seen
    assert vector.equal(place.state.vector)
    told = place.tally(*place.data.client(2))
    assert found[2]["mia_auc_binned"] == membership_auc(told, held_out(place.state))


def test_who_is_told_refuses_to_train_from_then_on(tmp_path):
    place = Place(tmp_path)
    place.tell(2)
    message = Message(RecordDict(), place.nodes[2], "train")
    (reply,) = place.grid.send_and_receive([message])
    assert "client 2 has been forgotten" in reply.error.reason


def test_a_node_that_is_gone_gives_null_with_a_reason(tmp_path):
    place = Place(tmp_path)
    found = place.tell(1, 3, nodes={3: place.nodes[3]})
    assert list(found) == [1, 3]
    assert dict(found[1]) == dict.fromkeys(NAMES)
    assert found[1].reason == f"{', '.join(NAMES)}: its node is gone"
    assert found[3].reason is None
    assert place.messenger.told == {3}


def test_nobody_there_costs_no_message_and_no_pass_over_data(tmp_path):
    place = Place(tmp_path)
    place.messenger = Messenger("classification", lambda state: 1 / 0, timeout=60)
    place.grid = None
    assert dict(place.tell(1, nodes={})[1]) == dict.fromkeys(NAMES)
    assert place.tell(nodes={}) == {}


class Losing(LocalGrid):
    """Loses what is sent to client 1."""

    def _answers(self, messages):
        yield from super()._answers([m for m in messages if m.metadata.dst_node_id != FIRST_CLIENT_NODE + 1])


def test_a_node_that_does_not_answer_is_null_and_may_be_told_later(tmp_path):
    place = Place(tmp_path, grid=Losing)
    found = place.tell(1, 2)
    assert found[1].reason == f"{', '.join(NAMES)}: its node did not answer within 60 s"
    assert found[2].reason is None
    place.grid = LocalGrid(app, 5, run_config={"experiment": str(place.path), "seed": SEED})
    assert place.tell(1)[1].reason is None
    assert place.messenger.told == {1, 2}


def test_a_node_s_traceback_stays_out_of_what_is_kept(tmp_path):
    def broken(message, context):
        if message.metadata.message_type == FORGOTTEN:
            raise RuntimeError("cannot read /data/patient-17.nii")
        return app(message, context)

    place = Place(tmp_path, broken)
    found = place.tell(4)
    assert found[4].reason == f"{', '.join(NAMES)}: its node answered with an error"
    assert place.messenger.told == set()


def test_what_clients_told_of_the_weights_before_is_read_the_same_way(tmp_path):
    place = Place(tmp_path)
    told = {3: place.tally(*place.data.client(3)), 1: Withheld("fewer than 5 examples")}
    found = place.messenger.measures(told, place.state)
    assert list(found) == [1, 3]
    assert dict(found[3]) == dict(place.expected(3))
    assert found[1].reason == f"{', '.join(NAMES)}: fewer than 5 examples"


def test_a_stage_is_a_document_of_numbers_and_reasons(tmp_path):
    place = Place(tmp_path)
    found = place.tell(1, 3, nodes={3: place.nodes[3]})
    metrics = {"validation-accuracy": 71.5, "validation-loss": 0.5, "train-loss": 0.1}
    document = stage(7, found, metrics, place.messenger.told)
    assert json.loads(json.dumps(document)) == document
    assert document == {
        "round": 7,
        "validation": {"accuracy": 71.5, "loss": 0.5},
        "clients": {
            "1": {"values": dict.fromkeys(NAMES), "reasons": dict.fromkeys(NAMES, "its node is gone")},
            "3": {"values": dict(found[3]), "reasons": {}},
        },
        "told": [3],
    }


def test_who_is_reminded_refuses_to_train_and_whoever_reminded_learns_that_it_knows(tmp_path):
    place = Place(tmp_path)
    place.messenger.remind(place.grid, {2: place.nodes[2], 4: place.nodes[4]})
    assert place.messenger.reminding == {2, 4} and place.messenger.told == set()
    place.messenger.collect(place.grid)
    assert place.messenger.told == {2, 4} and not place.messenger.reminding
    (reply,) = place.grid.send_and_receive([Message(RecordDict(), place.nodes[2], "train")])
    assert "client 2 has been forgotten" in reply.error.reason


def test_an_answer_in_another_node_s_name_is_not_its_answer(tmp_path, monkeypatch):
    place = Place(tmp_path)
    pull = LocalGrid.pull_messages

    def forged(self, names):
        replies = list(pull(self, names))
        for reply in replies:
            if reply.metadata.src_node_id == place.nodes[2]:
                reply.metadata.__dict__["_src_node_id"] = place.nodes[4]
        return replies

    monkeypatch.setattr(LocalGrid, "pull_messages", forged)
    place.messenger.remind(place.grid, {2: place.nodes[2], 4: place.nodes[4]})
    place.messenger.collect(place.grid)
    assert place.messenger.told == {4}
    assert place.messenger.reminding == {2}, "its own answer may still come"


def test_of_whom_only_a_part_is_forgotten_is_told_which_and_of_whom_all_is_nothing():
    sent = []
    grid = SimpleNamespace(send_and_receive=lambda messages, timeout: sent.extend(messages) or ())
    messenger = Messenger("classification", lambda state: Withheld("none"), timeout=1)
    state = ModelState(torch.zeros(2))
    some = Assignment(3, Part(7, 3, None, (0, 1)))
    messenger.of_parts(grid, {3: FIRST_CLIENT_NODE + 3}, {7: some}, state)
    messenger.forgotten(grid, {4: FIRST_CLIENT_NODE + 4}, [4], state)
    of_part, of_all = (dict(message.content["config"]) for message in sent)
    assert of_part == {ASSIGNMENT: some.dumps(), NUMBER: 7}
    assert of_all == {}
