"""Measuring the global model of a live federation: on the server's own data, and on the clients'."""

import random

import pytest
import torch
from flwr.app import Message, MetricRecord, RecordDict

from fedunlearn import config, workspace
from fedunlearn.clients.app import app
from fedunlearn.data.export import export, read_part
from fedunlearn.errors import ConfigError, OutOfMemoryError
from fedunlearn.evaluation.accuracy import mean_loss, quality
from fedunlearn.evaluation.histograms import Tally, Withheld, tally_of
from fedunlearn.evaluation.outputs import SplitOutputs, collect, predict
from fedunlearn.federation.compat import stamp
from fedunlearn.federation.local import FIRST_CLIENT_NODE, LocalGrid
from fedunlearn.federation.payload import ModelState, pack
from fedunlearn.federation.tallies import EVALUATE, tally_record
from fedunlearn.live.evaluation import FederatedEvaluation, Respondents, ServerFileEvaluation, evaluation_of
from fedunlearn.parts import Assignment, Part
from tests.clients.experiment import write

SEED = 1
NUM_CLIENTS = 5
LIVE = """
name = "live"
[data]
source = "synthetic-images"
num-train = 160
num-test = 60
num-classes = 4
validation = 0.2
[federation]
num-clients = 5
[model]
name = "small-cnn"
[train]
rounds = 2
lr = 0.1
[[method]]
name = "puf"
[requests]
[recover]
until = "reference-accuracy"
"""


class Place:
    """One experiment's data, a grid of its clients, and models by seed."""

    def __init__(self, folder, *overrides, workers=1):
        self.path, self.experiment = write(folder, *overrides)
        self.data = workspace.data_of(self.experiment, SEED)
        run_config = {"experiment": str(self.path), "seed": SEED}
        self.grid = LocalGrid(app, NUM_CLIENTS, run_config=run_config, workers=workers)

    def state(self, seed=5):
        model = workspace.new_model(self.experiment, self.data, seed)
        return ModelState(model.vector, model.buffers())

    def outputs(self, rows, seed=5):
        """The logits on some training rows, in one pass over all of them together."""
        module = workspace.new_model(self.experiment, self.data, seed).module
        images, labels = self.data.train_images[rows], self.data.train_labels[rows]
        return SplitOutputs(predict(module, images), labels)

    def nodes(self, clients=range(NUM_CLIENTS)):
        return {client: FIRST_CLIENT_NODE + client for client in clients}


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


# -- at the server ----------------------------------------------------------------------------------------


def test_the_server_measures_its_validation_data(place):
    evaluate = ServerFileEvaluation(place.experiment, place.data)
    found = evaluate(3, pack(place.state()))
    module = workspace.new_model(place.experiment, place.data, 5).module
    expected = collect(module, place.data, splits=("validation",)).validation
    assert dict(found) == {
        "validation-accuracy": quality(expected),
        "validation-loss": mean_loss(expected),
    }
    assert evaluate.without({1}, 3, place.state()) == found
    assert evaluate.held_out(place.state()) == tally_of(expected)
    assert evaluate(4, pack(place.state(6))) != found, "it is the model in the message that is measured"


def test_a_file_of_the_same_data_measures_the_same(place, tmp_path):
    export(place.data, tmp_path / "out")
    file = tmp_path / "out/server/validation.safetensors"
    part = read_part(file, task="classification", dtype=torch.float32)
    there = ServerFileEvaluation(
        place.experiment, part.of_server(len(place.data.clients), torch.device("cpu"))
    )
    here = ServerFileEvaluation(place.experiment, place.data)
    arrays = pack(place.state())
    assert there(1, arrays) == here(1, arrays)
    assert there.held_out(place.state()) == here.held_out(place.state())


def test_nothing_to_validate_on_is_refused_with_the_ways_out(tmp_path):
    place = Place(tmp_path, "data.validation=0", 'recover.until="max-rounds"')
    with pytest.raises(ConfigError, match=r'requests.validation = "clients"'):
        ServerFileEvaluation(place.experiment, place.data)


def test_a_diverged_model_has_no_measures(place):
    nan = ModelState(place.state().vector * float("nan"))
    evaluate = ServerFileEvaluation(place.experiment, place.data)
    assert dict(evaluate(1, pack(nan))) == {}
    assert isinstance(evaluate.held_out(nan), Withheld)


def test_a_lack_of_memory_says_that_it_was_evaluation(place, monkeypatch):
    def collect(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("fedunlearn.live.evaluation.collect", collect)
    with pytest.raises(OutOfMemoryError) as raised:
        ServerFileEvaluation(place.experiment, place.data)(3, pack(place.state()))
    assert str(raised.value) == "evaluation, round 3: out of memory (asked for 2.00 GiB)"
    assert raised.value.during == "evaluation", "what is advised depends on it"


# -- at the clients ---------------------------------------------------------------------------------------


def federated(place, nodes=None, task="classification"):
    evaluate = FederatedEvaluation(task, timeout=60)
    evaluate.bind(Respondents(place.grid, lambda: place.nodes() if nodes is None else nodes))
    return evaluate


@pytest.mark.parametrize("clients", [range(NUM_CLIENTS), (0, 3)])
def test_the_aggregate_is_the_measure_of_all_their_examples_together(place, clients):
    found = federated(place, place.nodes(clients))(2, pack(place.state()))
    expected = place.outputs(place.data.indices_of(clients))
    assert found["validation-accuracy"] == pytest.approx(quality(expected), rel=1e-12)
    assert found["validation-loss"] == pytest.approx(mean_loss(expected), rel=1e-5)
    assert found["validation-clients"] == len(clients)
    mean_of_means = sum(quality(place.outputs(place.data.clients[k])) for k in clients) / len(clients)
    assert found["validation-accuracy"] != pytest.approx(mean_of_means), "weighted by examples"


class Shuffling(LocalGrid):
    """Answers in an order of its own."""

    def _answers(self, messages):
        replies = list(super()._answers(messages))
        random.Random(len(replies)).shuffle(replies)
        yield from replies


def test_who_answers_first_changes_no_bit(place):
    in_order = federated(place)(1, pack(place.state()))
    place.grid = Shuffling(app, NUM_CLIENTS, run_config={"experiment": str(place.path), "seed": SEED})
    assert federated(place)(1, pack(place.state())) == in_order


def test_clients_are_asked_in_the_order_of_their_numbers(place):
    asked = []

    class Noting(LocalGrid):
        def _answers(self, messages):
            asked.extend(message.metadata.dst_node_id for message in messages)
            yield from super()._answers(messages)

    place.grid = Noting(app, NUM_CLIENTS, run_config={"experiment": str(place.path), "seed": SEED})
    federated(place, place.nodes((3, 0, 4)))(1, pack(place.state()))
    assert asked == [FIRST_CLIENT_NODE + client for client in (0, 3, 4)]


def test_several_workers_measure_the_same(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = Place(tmp_path / "one"), Place(tmp_path / "two", workers=2)
    assert federated(one)(1, pack(one.state())) == federated(two)(1, pack(two.state()))


def test_a_client_that_fails_or_lies_is_left_out(place):
    def spoiled(message, context):
        if context.node_config["partition-id"] == 1:
            raise RuntimeError("on fire")
        reply = app(message, context)
        if context.node_config["partition-id"] == 2:
            reply.content["tally"] = MetricRecord({**reply.content["tally"], "quality-sum": 1e9})
        if context.node_config["partition-id"] == 3:
            return Message(RecordDict(), reply_to=message)
        return reply

    expected = federated(place, place.nodes((0, 4)))(1, pack(place.state()))
    place.grid = LocalGrid(spoiled, NUM_CLIENTS, run_config={"experiment": str(place.path), "seed": SEED})
    assert federated(place)(1, pack(place.state())) == expected
    assert expected["validation-clients"] == 2


def test_a_client_cannot_outvote_the_others_by_claiming_many_examples(place):
    """Or it could have every forgetting rolled back: a model is as good as the examples that it is measured on."""

    def spoiled(message, context):
        reply = app(message, context)
        if context.node_config["partition-id"] == 2:
            worst = Tally(10**9, 0.0, 1e9, (10**9, *(0,) * 19))
            reply.content["tally"] = tally_record(worst)
        return reply

    expected = federated(place, place.nodes((0, 1, 3, 4)))(1, pack(place.state()))
    place.grid = LocalGrid(spoiled, NUM_CLIENTS, run_config={"experiment": str(place.path), "seed": SEED})
    assert federated(place)(1, pack(place.state()))["validation-accuracy"] < 1
    evaluate = FederatedEvaluation("classification", timeout=60)
    bounded = Respondents(
        place.grid, place.nodes, too_many=lambda client, n: "refused: too many" if n > 10**6 else ""
    )
    evaluate.bind(bounded)
    assert evaluate(1, pack(place.state())) == expected


def test_nobody_there_is_no_measure_and_no_error(place):
    evaluate = federated(place, {})
    assert dict(evaluate(1, pack(place.state()))) == {}
    assert isinstance(evaluate.held_out(place.state()), Withheld)


def test_a_diverged_model_is_measured_by_nobody(place):
    assert dict(federated(place)(1, pack(ModelState(place.state().vector * float("nan"))))) == {}


class Counting(LocalGrid):
    asked = 0

    def _answers(self, messages):
        assert {m.metadata.message_type for m in messages} == {EVALUATE}
        self.asked += len(messages)
        yield from super()._answers(messages)


def test_the_reference_leaves_out_who_is_forgotten_and_asks_nobody_again(place):
    """The model is afterwards measured without them: it must be compared with itself on the same data."""
    place.grid = Counting(app, NUM_CLIENTS, run_config={"experiment": str(place.path), "seed": SEED})
    evaluate = federated(place)
    everybody = evaluate(1, pack(place.state()))
    found = evaluate.without({1, 2}, 1, place.state())
    assert place.grid.asked == NUM_CLIENTS
    expected = place.outputs(place.data.indices_of((0, 3, 4)))
    assert found["validation-accuracy"] == pytest.approx(quality(expected), rel=1e-12)
    assert found["validation-clients"] == 3
    assert found["validation-accuracy"] != everybody["validation-accuracy"]


@pytest.mark.parametrize("last", [None, 6])
def test_the_reference_asks_if_other_weights_were_measured_last(place, last):
    """After a restart, or a step that was rolled back."""
    evaluate = federated(place, place.nodes((0, 3, 4)))
    if last is not None:
        evaluate(1, pack(place.state(last)))
    found = evaluate.without({1, 2}, 1, place.state(5))
    assert found == federated(place, place.nodes((0, 3, 4)))(1, pack(place.state(5)))


# -- which of them ----------------------------------------------------------------------------------------


def test_the_experiment_says_who_measures(place):
    live = config.loads(LIVE)

    def never():
        raise AssertionError("the server needs no data of its own here")

    assert isinstance(evaluation_of(live, data=lambda: place.data), ServerFileEvaluation)
    asked = config.loads(LIVE, overrides=['requests.validation="clients"'])
    assert isinstance(evaluation_of(asked, data=never), FederatedEvaluation)


def test_masks_are_measured_by_dice():
    told = Tally(5, 400.0, 2.0, (5, *(0,) * 19))

    class Grid:
        def send_and_receive(self, messages, *, timeout=None):
            return [
                Message(RecordDict({"tally": tally_record(told)}), reply_to=stamp(m, f"sent {number}"))
                for number, m in enumerate(messages)
            ]

    LocalGrid(app, 1)  # lets this process make messages
    evaluate = FederatedEvaluation("segmentation", timeout=1)
    evaluate.bind(Respondents(Grid(), lambda: {0: 2}))
    found = evaluate(1, pack(ModelState(torch.zeros(2))))
    assert dict(found) == {"validation-dice": 80.0, "validation-loss": 0.4, "validation-clients": 1}


def test_who_has_forgotten_a_part_measures_on_the_rest(place):
    """Client 1 measures on what it keeps, before the step that forgets its part as well as after it."""
    part = Part(NUM_CLIENTS, 1, None, (0, 1))
    assigned = {}
    evaluate = FederatedEvaluation("classification", timeout=60)
    evaluate.bind(Respondents(place.grid, lambda: place.nodes((1, 2)), lambda: assigned))

    def expected(rows):
        outputs = place.outputs(rows)
        return (quality(outputs), mean_loss(outputs))

    def told(record):
        return record["validation-accuracy"], record["validation-loss"]

    own, others = (place.data.clients[k] for k in (1, 2))
    kept = own[~torch.isin(place.data.train_labels[own], torch.tensor([0, 1])).numpy()]
    assert 5 <= len(kept) < len(own)
    everything, rest = (torch.tensor([*rows.tolist(), *others.tolist()]) for rows in (own, kept))
    assert told(evaluate(1, pack(place.state()))) == pytest.approx(expected(everything), abs=1e-4)
    assigned[1] = Assignment(1, None, (part,))  # a round is about to forget it
    before = evaluate.without({part.number}, 1, place.state())
    assert told(before) == pytest.approx(expected(rest), abs=1e-4)
    assert told(evaluate(2, pack(place.state()))) == pytest.approx(expected(rest), abs=1e-4)


def test_who_measures_on_what_is_left_says_that_it_did(place):
    def mute(message, context):
        reply = app(message, context)
        if context.node_config["partition-id"] == 1:
            del reply.content["metrics"]
        return reply

    place.grid = LocalGrid(mute, NUM_CLIENTS, run_config={"experiment": str(place.path), "seed": SEED})
    part = Part(NUM_CLIENTS, 1, None, (0, 1))
    evaluate = FederatedEvaluation("classification", timeout=60)
    evaluate.bind(
        Respondents(place.grid, lambda: place.nodes((1, 2)), lambda: {1: Assignment(1, None, (part,))})
    )
    assert evaluate(1, pack(place.state())) == federated(place, place.nodes((2,)))(1, pack(place.state()))
