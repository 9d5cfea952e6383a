"""The ClientApp for classification, asked as a strategy asks it."""

import pytest
import torch
import torch.nn.functional as F
from flwr.app import ConfigRecord, Message, RecordDict

from fedunlearn import models
from fedunlearn.clients.app import app
from fedunlearn.data import load_federated
from fedunlearn.federation.local import FIRST_CLIENT_NODE, LocalGrid
from fedunlearn.federation.payload import ModelState, pack, unpack
from fedunlearn.models.flat import FlatModel
from fedunlearn.randomness import torch_generator
from tests.clients.experiment import write
from tests.federation.contributions import bits

SEED = 1


class Asked:
    """A grid of the clients of one experiment, and the model they are sent."""

    def __init__(self, folder, *overrides, seed=SEED):
        self.path, self.experiment = write(folder, *overrides)
        self.data = load_federated(self.experiment.data, 5, seed, dtype=self.dtype)
        self.model = FlatModel(self.new_module(), dtype=self.dtype)
        self.grid = LocalGrid(app, 5, run_config={"experiment": str(self.path), "seed": seed})

    @property
    def dtype(self):
        return {"float32": torch.float32, "float64": torch.float64}[self.experiment.engine.precision]

    def new_module(self):
        return models.build(self.experiment.model, num_classes=4, in_channels=1, image_size=8, seed=5)

    @property
    def state(self):
        return ModelState(self.model.vector.clone(), self.model.buffers())

    def __call__(self, client, kind="train", *, state=None, round=1, seed=SEED, lr=0.1):
        config = ConfigRecord({"round": round, "seed": seed, "lr": lr})
        content = RecordDict({"arrays": pack(state or self.state), "config": config})
        (reply,) = self.grid.send_and_receive([Message(content, FIRST_CLIENT_NODE + client, kind)])
        assert not reply.has_error(), reply.error.reason
        return reply.content

    def update(self, *args, **kwargs):
        return unpack(self(*args, **kwargs)["arrays"]).vector

    def plainly(self, client, *, round=1, seed=SEED, lr=0.1):
        """Return Δ_k and the mean loss by a loop that knows neither Flower nor flat vectors."""
        rows = self.data.clients[client]
        images, labels = self.data.train_images[rows], self.data.train_labels[rows]
        module, config, total = self.new_module().to(self.dtype), self.experiment.train, 0.0
        optimizer = torch.optim.SGD(
            module.parameters(), lr=lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
        draw = torch_generator(seed, "batches", round, client)
        for _ in range(config.local_epochs):
            for batch in torch.randperm(len(labels), generator=draw).split(config.batch_size):
                optimizer.zero_grad()
                loss = F.cross_entropy(module(images[batch]), labels[batch])
                loss.backward()
                optimizer.step()
                total += loss.item() * len(batch)
        flat = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
        return flat - self.model.vector, total / (len(labels) * config.local_epochs)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    return Asked(tmp_path_factory.mktemp("experiment"))


@pytest.mark.parametrize("overrides", [(), ("engine.precision=float64", "train.local-epochs=2")])
def test_training_answers_with_the_pseudo_gradient_of_a_plain_loop(tmp_path, overrides):
    asked = Asked(tmp_path, *overrides)
    for client, round in ((0, 1), (3, 7)):
        delta, loss = asked.plainly(client, round=round)
        content = asked(client, round=round)
        # To the last bit: tests/training/test_local.py. Here BLAS may see the weights at another alignment.
        atol = 1e-6 if asked.dtype == torch.float32 else 1e-14
        assert torch.allclose(unpack(content["arrays"]).vector, delta, rtol=0, atol=atol)
        assert content["metrics"]["num-examples"] == len(asked.data.clients[client])
        assert content["metrics"]["train-loss"] == pytest.approx(loss, rel=1e-6)
        assert delta.abs().max() > 0


def test_a_client_that_is_forgotten_trains_exactly_as_usual(asked):
    """PUF negates at the server: asked to forget, a client takes the same steps downhill."""
    usual, forgetting = asked(2, "train"), asked(2, "train.forget")
    assert bits(unpack(usual["arrays"]).vector) == bits(unpack(forgetting["arrays"]).vector)
    assert dict(usual["metrics"]) == dict(forgetting["metrics"])


def test_its_batches_are_addressed_by_seed_round_and_client(asked):
    first = bits(asked.update(2))
    assert bits(asked.update(2)) == first
    others = {bits(asked.update(2, round=2)), bits(asked.update(2, seed=9)), bits(asked.update(3))}
    assert len(others) == 3 and first not in others
    assert bits(asked.update(2, lr=0.01)) != first


def test_what_a_worker_did_before_leaves_no_trace(asked):
    before = bits(asked.update(2))
    huge = ModelState(asked.model.vector + 1e3, asked.model.buffers())
    asked(1, state=huge)
    asked(0, "evaluate", state=huge)
    torch.manual_seed(7)
    torch.rand(3)
    assert bits(asked.update(2)) == before


def test_the_received_weights_are_not_touched(asked):
    """They are the server's own, and every other client's."""
    state = asked.state
    before = bits(state.vector)
    update = asked.update(2, state=state)
    assert bits(state.vector) == before
    update.fill_(float("nan"))
    assert bits(state.vector) == before
    assert torch.isfinite(asked.update(2)).all(), "nor is the answer the worker's own memory"


def test_answers_do_not_share_memory(asked):
    one, other = asked.update(2), asked.update(3)
    kept = bits(one)
    other.zero_()
    asked.update(2)
    assert bits(one) == kept


def test_two_experiments_in_turn_do_not_mix(asked, tmp_path):
    (tmp_path / "other").mkdir()
    other = Asked(tmp_path / "other", "train.lr=0.7", "train.batch-size=3", "data.alpha=5.0")
    mine, its = bits(asked.update(2)), bits(other.update(2))
    assert mine != its
    for _ in range(2):
        assert bits(asked.update(2)) == mine
        assert bits(other.update(2)) == its


def test_two_seeds_in_turn_do_not_mix(tmp_path):
    one, two = Asked(tmp_path), Asked(tmp_path, seed=2)
    assert [len(rows) for rows in one.data.clients] != [len(rows) for rows in two.data.clients]
    for _ in range(2):
        for each in (one, two):
            assert each(3)["metrics"]["num-examples"] == len(each.data.clients[3])


def test_evaluating_measures_the_received_model_on_the_client_s_own_data(asked):
    content = asked(2, "evaluate")
    rows = asked.data.clients[2]
    images, labels = asked.data.train_images[rows], asked.data.train_labels[rows]
    with torch.no_grad():
        logits = asked.model.module.eval()(images)
    assert content["metrics"]["num-examples"] == len(rows)
    assert content["metrics"]["accuracy"] == pytest.approx(
        100 * (logits.argmax(1) == labels).double().mean().item()
    )
    assert content["metrics"]["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert len(content["arrays"]) == 0, "a measure, no weights"


def test_a_node_says_whom_it_serves(asked):
    assert [asked(k, "query")["metrics"]["client"] for k in range(5)] == [0, 1, 2, 3, 4]


def test_a_model_of_another_size_is_an_error_with_a_traceback(asked):
    content = RecordDict(
        {
            "arrays": pack(ModelState(torch.zeros(3))),
            "config": ConfigRecord({"round": 1, "seed": SEED, "lr": 0.1}),
        }
    )
    (reply,) = asked.grid.send_and_receive([Message(content, FIRST_CLIENT_NODE, "train")])
    assert "got a vector of (3,)" in reply.error.reason
