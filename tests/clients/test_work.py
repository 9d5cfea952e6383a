"""What a client says of its reply: that it is an update, and what was run for it."""

import re

import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict

from fedunlearn import plugins, workspace
from fedunlearn.clients.app import app
from fedunlearn.clients.classification import Classification
from fedunlearn.clients.tasks import routine_of
from fedunlearn.federation.answers import ASSIGNMENT, FORGET, NUMBER, TRAIN, RoundWork
from fedunlearn.federation.hosted_routine import Chosen
from fedunlearn.federation.jobs import EPOCHS, RETURNS, ROUTINE, Job
from fedunlearn.federation.local import FIRST_CLIENT_NODE, LocalGrid
from fedunlearn.federation.payload import ModelState, pack, packed
from fedunlearn.federation.replies import Question, read
from fedunlearn.parts import Assignment, Part
from tests.clients.experiment import write
from tests.server.prober import PullSettings

SEED = 1
JOB = Job(Chosen.of("random-label", {"epochs": 1, "batch-size": 8}))
CHOSEN = JOB.routine.dumps()
PULL = Job(Chosen("tests.server.prober:PULL", PullSettings())).told
CONFIG = {"round": 1, "seed": SEED, "lr": 0.1}
PART = {ASSIGNMENT: Assignment(2, Part(7, 2, 0.5)).dumps(), NUMBER: 7}
NOTHING = {ASSIGNMENT: Assignment(2, Part(7, 2, classes=())).dumps(), NUMBER: 7}


class Place:
    def __init__(self, folder):
        self.path, self.experiment = write(folder)
        model = workspace.new_model(self.experiment, workspace.data_of(self.experiment, SEED), 5)
        self.state = ModelState(model.vector, model.buffers())

    def reply(self, kind, tensors=None, **config):
        """Return what client 2 answers."""
        grid = LocalGrid(app, 5, run_config={"experiment": str(self.path), "seed": SEED})
        content = RecordDict({"arrays": pack(self.state), "config": ConfigRecord({**CONFIG, **config})})
        if tensors is not None:
            content["tensors"] = packed(tensors)
        (reply,) = grid.send_and_receive([Message(content, FIRST_CLIENT_NODE + 2, kind, group_id="1")])
        return reply


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.mark.parametrize(
    ("kind", "config", "ran"),
    [
        (TRAIN, {}, "train"),
        (TRAIN, {ROUTINE: CHOSEN}, CHOSEN),
        (TRAIN, {EPOCHS: 3}, "train for 3 epochs"),
        (FORGET, {EPOCHS: 1, **PART}, "train for 1 epoch"),
        (FORGET, {}, "train"),
        (FORGET, {ROUTINE: CHOSEN}, CHOSEN),
        (FORGET, {ROUTINE: CHOSEN, **PART}, CHOSEN),
        (FORGET, {ROUTINE: CHOSEN, **NOTHING}, CHOSEN),
    ],
)
def test_a_client_says_what_it_carries_and_ran_and_the_server_finds_that_it_was_asked_so(
    place, kind, config, ran
):
    reply = place.reply(kind, **config)
    assert dict(reply.content["work"]) == {"carries": "update", "ran": ran}
    number = config.get(NUMBER, 2)
    question = Question(
        number, FIRST_CLIENT_NODE + 2, kind, "1", update_of=place.state, ran=ran, assigned=NUMBER in config
    )
    reading = read(reply, question)
    assert reading.why == ""
    assert (reading.contribution is None) == (config.get(ASSIGNMENT) == NOTHING[ASSIGNMENT])


class Ignoring(Classification):
    """A task of somebody's own that has never heard of routines."""

    def train(self, client, kind, config, tensors):
        return super().train(client, TRAIN, {k: v for k, v in config.items() if k != ROUTINE}, tensors)


def test_a_client_that_ignores_the_routine_says_so_without_knowing(place, monkeypatch):
    """What was run is said by whatever ran it, not copied from the question."""
    monkeypatch.setitem(plugins.LOADED, ("tasks", "classification"), Ignoring)
    assert place.reply(FORGET, **{ROUTINE: CHOSEN}).content["work"]["ran"] == "train"


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("task", [Ignoring, Classification])
def test_without_messages_it_is_refused_alike(place, workers, task, monkeypatch):
    monkeypatch.setitem(plugins.LOADED, ("tasks", "classification"), task)
    work = RoundWork(place.state, CONFIG, train=(0,), forget=(1,), jobs={FORGET: JOB})
    with LocalGrid(app, 5, routine=lambda: routine_of(place.experiment, SEED), workers=workers) as grid:
        answers = grid.trainer.train_round(work)
    if task is Ignoring:
        asked = f"the client ran 'train' instead of {CHOSEN!r}"
        assert answers.failed == {1: f"refused: not what was asked: {asked}"}
        assert answers.forgetting == [] and sorted(answers.losses) == [0]
    else:
        assert answers.failed == {} and sorted(answers.losses) == [0, 1]


def test_a_client_that_cannot_do_it_refuses_in_the_same_line_by_message_and_without(place):
    needing = Job(Chosen.of("fine-tune", {"epochs": 1}))
    reply = place.reply(FORGET, **needing.told)
    assert reply.has_error()
    work = RoundWork(place.state, CONFIG, train=(), forget=(2,), jobs={FORGET: needing})
    with LocalGrid(app, 5, routine=lambda: routine_of(place.experiment, SEED)) as grid:
        answers = grid.trainer.train_round(work)
    assert answers.failed == {2: reply.error.reason}
    assert reply.error.reason.startswith("refused: fine-tune: needs retained examples")
    assert "\n" not in reply.error.reason


@pytest.mark.parametrize(
    ("tensors", "config", "why"),
    [
        ({"a": torch.ones(2, 2)}, {}, r"the message of the server: tensor 'a' of shape \(2, 2\)"),
        (
            {"a": torch.ones(2).double()},
            {},
            r"the message of the server: tensor 'a' of .* torch.float64: must be",
        ),
        ({}, {RETURNS: "[]"}, "the message of the server: returns"),
        (
            {},
            {RETURNS: '{"a": 0}'},
            "the message of the server: returns: the length of 'a' must be a whole number",
        ),
        (
            {},
            {RETURNS: '{"a": 1.5}'},
            "the message of the server: returns: the length of 'a' must be a whole number",
        ),
        ({}, {RETURNS: '{"a": 3}'}, r"extras \[\], the job's are \['a'\]"),
        ({}, {EPOCHS: 0}, "the message of the server: epochs = 0: must be at least 1"),
        (
            {},
            {ROUTINE: '{"name": "os:system", "settings": {}}'},
            "routine = .*must be in a module that the exp",
        ),
        ({"push": torch.ones(4)}, PULL, "tensor 'reference' is missing; there are: 'push'"),
        (
            {"push": torch.ones(4), "reference": torch.ones(3)},
            PULL,
            r"tensor 'reference' of shape \(3,\): must be",
        ),
    ],
)
def test_a_client_refuses_in_one_line_what_no_job_can_be(place, tensors, config, why, monkeypatch):
    monkeypatch.setattr("fedunlearn.clients.trainer.modules_of", lambda experiment: {"tests.server.prober"})
    reply = place.reply(TRAIN, tensors=tensors, **config)
    assert reply.has_error()
    assert re.match(f"refused: {why}", reply.error.reason) and "\n" not in reply.error.reason
