"""The ClientApp for segmentation, asked as a strategy asks it: weights, and the statistics of BatchNorm."""

import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict

from fedunlearn import plugins, workspace
from fedunlearn.clients.app import app
from fedunlearn.clients.classification import Classification
from fedunlearn.clients.segmentation import Segmentation
from fedunlearn.clients.tasks import routine_at, routine_of
from fedunlearn.federation.local import FIRST_CLIENT_NODE, LocalGrid
from fedunlearn.federation.payload import ModelState, pack, unpack
from fedunlearn.models.flat import FlatModel
from fedunlearn.randomness import torch_generator
from fedunlearn.training import LOSSES, NotStackableError
from tests.clients import sites
from tests.e2e.tiny import tiny
from tests.federation.contributions import bits

SEED = 1
DOUBLE = "engine.precision=float64"


class Asked:
    """A grid of the sites, and the model that they are sent."""

    def __init__(self, monkeypatch, *overrides):
        self.place = sites.workplace(*overrides)
        self.experiment = self.place.experiment
        monkeypatch.setattr(workspace, "workplace", lambda path, seed: self.place)
        self.grid = LocalGrid(app, sites.NUM_CLIENTS, run_config={"experiment": "by hand", "seed": SEED})
        model = FlatModel(self.new_module(), dtype=workspace.dtype_of(self.experiment))
        self.state = ModelState(model.vector, model.buffers())

    def new_module(self):
        return sites.new_module(self.experiment)

    def __call__(self, client, kind="train", *, state=None, round=1):
        config = ConfigRecord({"round": round, "seed": SEED, "lr": self.experiment.train.lr})
        content = RecordDict({"arrays": pack(state or self.state), "config": config})
        (reply,) = self.grid.send_and_receive([Message(content, FIRST_CLIENT_NODE + client, kind)])
        assert not reply.has_error(), reply.error.reason
        return reply.content

    def update(self, *args, **kwargs):
        return unpack(self(*args, **kwargs)["arrays"])

    def plainly(self, client, *, round=1):
        """Return Δ_k, the buffers and the mean loss by a loop that knows neither Flower nor flat vectors."""
        images, masks = self.place.data.client(client)
        config, module, total = self.experiment.train, self.new_module().to(images.dtype), 0.0
        optimizer = torch.optim.Adam(module.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        draw = torch_generator(SEED, "batches", round, client)
        for _ in range(config.local_epochs):
            for batch in torch.randperm(len(masks), generator=draw).split(config.batch_size):
                optimizer.zero_grad()
                loss = plain_loss(module(images[batch]), masks[batch])
                loss.backward()
                optimizer.step()
                total += loss.item() * len(batch)
        flat = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
        return (
            flat - self.state.vector,
            dict(module.named_buffers()),
            total / (len(masks) * config.local_epochs),
        )


def plain_loss(logits, masks):
    """Half of cross-entropy and soft Dice, in a few lines."""
    p = logits.softmax(1)
    t = torch.stack([masks == 0, masks == 1], 1).to(p)
    cross_entropy = -(t * p.log()).sum(1).mean()
    shared, whole = (2 * p * t).sum((2, 3)), (p + t).sum((2, 3))
    return (cross_entropy + (1 - (shared + 1e-5) / (whole + 1e-5)).mean()) / 2


@pytest.fixture
def asked(monkeypatch):
    return Asked(monkeypatch)


@pytest.mark.parametrize(
    "overrides", [(), ("train.local-epochs=2", "train.weight-decay=0"), ("model.norm=instance",)]
)
def test_training_answers_with_what_a_plain_loop_gives(monkeypatch, overrides):
    asked = Asked(monkeypatch, DOUBLE, *overrides)
    for client, round in ((0, 1), (2, 7)):
        delta, buffers, loss = asked.plainly(client, round=round)
        content = asked(client, round=round)
        found = unpack(content["arrays"])
        torch.testing.assert_close(found.vector, delta, rtol=0, atol=1e-12)
        assert delta.abs().max() > 1e-3
        assert found.buffers.keys() == buffers.keys()
        for name, buffer in buffers.items():
            torch.testing.assert_close(found.buffers[name], buffer, rtol=0, atol=1e-12)
        assert bool(buffers) == ("model.norm=instance" not in overrides)
        assert content["metrics"]["num-examples"] == sites.SLICES[client]
        assert content["metrics"]["train-loss"] == pytest.approx(loss, rel=1e-12)


def test_a_site_that_is_forgotten_trains_exactly_as_usual(asked):
    usual, forgetting = asked(2, "train"), asked(2, "train.forget")
    assert state_bits(unpack(usual["arrays"])) == state_bits(unpack(forgetting["arrays"]))
    assert dict(usual["metrics"]) == dict(forgetting["metrics"])


def test_every_site_starts_from_the_buffers_it_is_sent(asked):
    """Whatever the same worker did before, for whom and with what statistics, evaluation among it."""
    before = state_bits(asked.update(2))
    shifted = {name: buffer + 3 for name, buffer in asked.state.buffers.items()}
    other = ModelState(asked.state.vector + 1, shifted)
    assert state_bits(asked.update(2, state=other)) != before
    asked(0, state=other)
    asked(1, "evaluate", state=other)
    torch.manual_seed(7)
    assert state_bits(asked.update(2)) == before


def test_the_received_statistics_are_not_touched(asked):
    before = state_bits(asked.state)
    update = asked.update(2)
    for buffer in update.buffers.values():
        buffer.zero_()
    assert state_bits(asked.state) == before
    assert any(buffer.any() for buffer in asked.update(2).buffers.values()), (
        "nor is the answer the worker's own"
    )


def test_evaluating_measures_dice_and_loss_with_the_received_statistics(asked):
    statistics = {
        name: buffer + (0.5 if buffer.is_floating_point() else 0)
        for name, buffer in asked.state.buffers.items()
    }
    state = ModelState(asked.state.vector, statistics)
    content = asked(1, "evaluate", state=state)
    images, masks = asked.place.data.client(1)
    model = FlatModel(asked.new_module())
    model.load(state.vector, statistics)
    with torch.no_grad():
        logits = model.module.eval()(images)
    dice = []
    for prediction, mask in zip(logits.argmax(1), masks, strict=True):
        for c in (0, 1):
            whole = (prediction == c).sum() + (mask == c).sum()
            dice.append((200 * ((prediction == c) & (mask == c)).sum() / whole).item())
    assert content["metrics"]["num-examples"] == sites.SLICES[1]
    assert content["metrics"]["dice"] == pytest.approx(sum(dice) / len(dice), rel=1e-5)
    assert content["metrics"]["loss"] == pytest.approx(plain_loss(logits, masks).item(), rel=1e-5)
    assert "accuracy" not in content["metrics"]
    assert len(content["arrays"]) == 0, "measures, no weights"


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_no_stack_trains_with_another_loss(norm):
    routine = sites.routine(f"model.norm={norm}")
    start = routine.model.vector.clone()
    with pytest.raises(NotStackableError, match="dice_cross_entropy"):
        routine.train_stack([0, 1], start, {"round": 1, "lr": 0.1, "seed": SEED})


def test_the_task_of_the_data_chooses_the_routine(monkeypatch):
    chosen = {}
    for asked in (tiny(), sites.experiment()):
        data = sites.data()
        monkeypatch.setattr(workspace, "data_of", lambda experiment, seed, data=data: data)
        monkeypatch.setattr(workspace, "model_of", lambda experiment, data: None)
        place = workspace.Workplace(asked, data, None)
        monkeypatch.setattr(workspace, "workplace", lambda path, seed, place=place: place)
        chosen[asked.data.task] = {type(routine_of(asked, 1)), type(routine_at("somewhere", 1))}
    assert chosen == {"classification": {Classification}, "segmentation": {Segmentation}}
    assert set(plugins.names("tasks")) == LOSSES.keys() == chosen.keys()


def state_bits(state):
    """Return everything in a model's state, down to the bits."""
    return [bits(state.vector), *((name, bits(buffer)) for name, buffer in state.buffers.items())]
