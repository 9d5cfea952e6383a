"""A client that is forgotten: what it tells of the model, how its node learns of it, and what it refuses then."""

import logging
import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from flwr.app import ConfigRecord, Message, RecordDict

from fedunlearn import workspace
from fedunlearn.clients.app import app
from fedunlearn.clients.classification import Classification
from fedunlearn.clients.tasks import routine_on
from fedunlearn.evaluation.histograms import BINS, Tally, Withheld
from fedunlearn.federation.answers import ASSIGNMENT, FORGET, TALLY, RoundWork
from fedunlearn.federation.local import FIRST_CLIENT_NODE, LocalGrid
from fedunlearn.federation.payload import ModelState, pack, unpack
from fedunlearn.federation.tallies import EVALUATE, FORGOTTEN, tally_in
from fedunlearn.models.flat import FlatModel
from fedunlearn.parts import Assignment, Part
from tests.clients import sites
from tests.clients.experiment import write
from tests.federation.contributions import bits

SEED = 1


class Asked:
    """A grid of one experiment's clients. Weights to send: any, of a seed."""

    def __init__(self, folder, *overrides):
        self.path, self.experiment = write(folder, *overrides)
        self.data = workspace.data_of(self.experiment, SEED)
        self.grid = LocalGrid(app, 5, run_config={"experiment": str(self.path), "seed": SEED})

    def model(self, seed=5):
        return workspace.new_model(self.experiment, self.data, seed)

    def __call__(self, client, kind, *, weights=5, **config):
        model = self.model(weights)
        told = ConfigRecord({"round": 1, "seed": SEED, "lr": 0.1, **config})
        state = ModelState(model.vector, model.buffers())
        content = RecordDict({"arrays": pack(state), "config": told})
        (reply,) = self.grid.send_and_receive([Message(content, FIRST_CLIENT_NODE + client, kind)])
        return reply

    def counted(self, client, weights=5):
        """The tally of a client's data by plain loops over its examples."""
        images, labels = self.data.client(client)
        module = self.model(weights).module.eval()
        with torch.no_grad():
            logits = module(images).double()
        right = (logits.argmax(1) == labels).sum().item()
        probabilities = torch.softmax(logits, 1)
        bins = Counter(math.floor(p[label] * BINS) for p, label in zip(probabilities, labels, strict=True))
        loss = F.cross_entropy(logits, labels, reduction="sum").item()
        return len(labels), 100 * right, loss, tuple(bins.get(i, 0) for i in range(BINS))


@pytest.fixture
def asked(tmp_path):
    return Asked(tmp_path)


def check(told, expected):
    assert isinstance(told, Tally)
    assert (told.num_examples, told.quality_sum, told.confidences) == (expected[0], expected[1], expected[3])
    assert told.loss_sum == pytest.approx(expected[2], rel=1e-5)


# -- what it tells ----------------------------------------------------------------------------------------


def test_a_client_to_forget_counts_what_the_model_it_receives_makes_of_its_data(asked):
    check(tally_in(asked(2, FORGET, tally=True).content), asked.counted(2))


def test_the_tally_changes_no_bit_of_the_update(asked):
    with_it, without = asked(2, FORGET, tally=True).content, asked(2, FORGET).content
    assert bits(unpack(with_it["arrays"]).vector) == bits(unpack(without["arrays"]).vector)
    assert dict(with_it["metrics"]) == dict(without["metrics"])
    assert set(without) == {"arrays", "metrics", "work"}, "simulations ask for none and get none"


def test_only_a_client_to_forget_tells_more_than_usual(asked):
    assert set(asked(2, "train", tally=True).content) == {"arrays", "metrics", "work"}


@pytest.mark.parametrize("weights", [5, 6])
def test_a_retained_client_counts_when_it_is_asked_to(asked, weights):
    content = asked(3, EVALUATE, weights=weights).content
    assert set(content) == {TALLY}
    check(tally_in(content), asked.counted(3, weights))


def test_a_client_with_few_examples_tells_nothing_of_them(tmp_path):
    asked = Asked(tmp_path, "data.num-train=40", "data.alpha=0.6")
    sizes = [len(asked.data.client(k)[1]) for k in range(5)]
    few = next(k for k, size in enumerate(sizes) if 0 < size < 5)
    for kind, config in ((EVALUATE, {}), (FORGET, {"tally": True}), (FORGOTTEN, {})):
        assert tally_in(asked(few, kind, **config).content) == Withheld("fewer than 5 examples")


def test_a_measurement_that_fails_does_not_stand_in_the_way_of_forgetting(asked, monkeypatch):
    expected = bits(unpack(asked(2, FORGET).content["arrays"]).vector)

    def broken(self, images, targets):
        raise RuntimeError("patient 17 cannot be read")

    monkeypatch.setattr(Classification, "_outputs", broken)
    content = asked(2, FORGET, tally=True).content
    assert bits(unpack(content["arrays"]).vector) == expected
    assert tally_in(content) == Withheld("the measurement failed: RuntimeError")


def test_the_log_names_the_client_whose_part_was_not_measured_not_the_part_s_number(
    asked, monkeypatch, caplog
):
    def broken(self, images, targets):
        raise RuntimeError

    monkeypatch.setattr(Classification, "_outputs", broken)
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    routine = routine_on(asked.experiment, asked.data)
    told = {ASSIGNMENT: Assignment(2, Part(6, 2, samples=0.9)).dumps()}
    assert routine.tally(6, told) == Withheld("the measurement failed: RuntimeError")
    routine.tally(3)
    assert [r.getMessage() for r in caplog.records] == [
        "client 2, 90 % of the samples: could not measure its data",
        "client 3: could not measure its data",
    ]


# -- what its node learns ---------------------------------------------------------------------------------


def test_a_node_that_learns_it_is_forgotten_counts_by_the_weights_it_is_sent(asked):
    check(tally_in(asked(2, FORGOTTEN, weights=6).content), asked.counted(2, 6))


def test_a_forgotten_node_refuses_by_name(asked):
    assert not asked(2, FORGOTTEN).has_error()
    for kind in ("train", FORGET, "evaluate", EVALUATE):
        reply = asked(2, kind)
        assert reply.has_error(), kind
        assert "client 2 has been forgotten and no longer trains or evaluates" in reply.error.reason
    for kind in ("train", FORGET, "evaluate", EVALUATE):
        assert not asked(3, kind).has_error(), "nobody else has been told anything"


def test_a_forgotten_node_still_says_whom_it_serves(asked):
    asked(2, FORGOTTEN)
    assert asked(2, "query").content["metrics"]["client"] == 2


def test_a_node_may_be_told_twice(asked):
    first, second = asked(2, FORGOTTEN), asked(2, FORGOTTEN)
    assert tally_in(first.content) == tally_in(second.content)
    assert asked(2, "train").has_error()


def test_a_forgotten_node_drops_what_it_kept(asked):
    kept = RecordDict({"personal head": pack(ModelState(torch.ones(3))), "rounds": ConfigRecord({"seen": 9})})
    asked.grid._keep(2, kept)
    asked(2, FORGOTTEN)
    state = asked.grid._states[2]
    assert {name: dict(record) for name, record in state.items()} == {"forgotten": {}}


def test_a_node_is_told_even_if_it_cannot_measure(asked, monkeypatch):
    monkeypatch.setattr(Classification, "_outputs", lambda self, images, targets: 1 / 0)
    assert tally_in(asked(2, FORGOTTEN).content) == Withheld("the measurement failed: ZeroDivisionError")
    assert asked(2, "train").has_error()


# -- without messages -------------------------------------------------------------------------------------


def trained(maker, state, *, workers=1, **config):
    told = {"round": 1, "seed": SEED, "lr": 0.1, **config}
    with LocalGrid(app, 5, routine=maker, workers=workers) as grid:
        return grid.trainer.train_round(RoundWork(state, told, train=(0, 1, 3), forget=(2,)))


def state_of(place):
    model = FlatModel(sites.new_module(place.experiment), dtype=torch.float32)
    return ModelState(model.vector, model.buffers())


@pytest.mark.parametrize("workers", [1, 2])
def test_an_engine_s_own_trainer_tells_the_same(monkeypatch, workers):
    """Of a network with BatchNorm, whose statistics a measurement must not touch."""
    place = sites.workplace()
    monkeypatch.setattr(workspace, "workplace", lambda path, seed: place)
    state = state_of(place)
    with_it = trained(sites.routine, state, workers=workers, tally=True)
    without = trained(sites.routine, state, workers=workers)
    assert not without.tallies and not with_it.failed and not without.failed
    ((client, told),) = with_it.tallies.items()
    assert client == 2
    (one,), (other,) = with_it.forgetting, without.forgetting
    assert bits(one.delta) == bits(other.delta)
    assert {k: bits(v) for k, v in one.buffers.items()} == {k: bits(v) for k, v in other.buffers.items()}
    assert bits(with_it.retained.step_from(state.vector)) == bits(without.retained.step_from(state.vector))

    grid = LocalGrid(app, sites.NUM_CLIENTS, run_config={"experiment": "by hand", "seed": SEED})
    config = ConfigRecord({"round": 1, "seed": SEED, "lr": 0.1, "tally": True})
    message = Message(RecordDict({"arrays": pack(state), "config": config}), FIRST_CLIENT_NODE + 2, FORGET)
    (reply,) = grid.send_and_receive([message])
    assert tally_in(reply.content) == told
    assert isinstance(told, Tally) and told.num_examples == sites.SLICES[2]


def test_a_reminder_marks_the_node_and_measures_nothing(asked):
    (reply,) = asked.grid.send_and_receive([Message(RecordDict(), FIRST_CLIENT_NODE + 2, FORGOTTEN)])
    assert not reply.has_error() and not reply.content
    assert asked(2, "train").has_error()
