"""Dropout in training: the same bits in every engine, whatever the user's generator holds, which stays as it is."""

import threading

import pytest
import torch
from torch import nn

from fedunlearn.config import TrainConfig
from fedunlearn.errors import UserError
from fedunlearn.federation.answers import RoundWork
from fedunlearn.federation.local_trainer import LocalTrainer
from fedunlearn.federation.worker import Unit, Worker
from fedunlearn.models.draws import draws_at_random
from fedunlearn.models.flat import FlatModel
from fedunlearn.models.global_generators import own_draws
from fedunlearn.models.state import ModelState
from fedunlearn.randomness import torch_generator
from fedunlearn.training import train_local, train_stack
from fedunlearn.training.many import train_many
from fedunlearn.training.stackable import why_not_stackable
from tests.federation.contributions import bits
from tests.unlearning import modules, tiny

SETTINGS = TrainConfig(rounds=1, lr=0.1, batch_size=4, local_epochs=2)
CLIENTS = tuple(range(6))


class Routine:
    """Six clients with data of their own."""

    def __init__(self, model):
        self.model = model.copy()  # which draws nothing: workers are made in their threads

    def _data(self, client):
        return tiny.examples(9 + client, 10 + client)

    def train(self, client, kind, config, tensors):
        generator = torch_generator(1, "batches", config["round"], client)
        return train_local(self.model, *self._data(client), SETTINGS, lr=0.1, generator=generator)

    def train_stack(self, clients, start, config):
        rows = [self._data(client) for client in clients]
        generators = [torch_generator(1, "batches", config["round"], client) for client in clients]
        images, labels = ([row[i] for row in rows] for i in (0, 1))
        return train_stack(self.model, start, images, labels, SETTINGS, lr=0.1, generators=generators)

    def tally(self, client, config=None):
        raise AssertionError


def start(make):
    return ModelState(modules.flat(make).vector.clone())


def after_a_round(make, *, workers=1, batch_clients=1, seed=0):
    torch.manual_seed(seed)
    before = torch.get_rng_state()
    model = modules.flat(make)
    trainer = LocalTrainer(lambda: Routine(model), workers=workers, batch_clients=batch_clients)
    work = RoundWork(start(make), {"round": 3}, CLIENTS, individually=True)
    try:
        answers = trainer.train_round(work)
    finally:
        trainer.close()
    assert torch.equal(torch.get_rng_state(), before)
    assert not answers.failed, answers.failed
    return {update.client: bits(update.delta) for update in answers.retained}


@pytest.mark.parametrize("kind", modules.DRAWING)
def test_threads_stacks_and_the_users_generator_make_no_difference(kind):
    make = modules.DRAWING[kind]
    once = after_a_round(make)
    assert len({*once.values()}) == len(CLIENTS)
    assert after_a_round(make, seed=1) == once
    assert after_a_round(make, workers=3, seed=2) == once
    assert after_a_round(make, batch_clients=4, seed=3) == once  # refused, and then one by one


def test_a_worker_that_does_one_client_alone_gives_what_all_of_them_give():
    """As a worker of Ray does, in a process of its own."""
    make = modules.DRAWING["dropout"]
    once = after_a_round(make)
    torch.manual_seed(9)
    worker = Worker(Routine(modules.flat(make)))
    work = RoundWork(start(make), {"round": 3}, CLIENTS, individually=True)
    for client in reversed(CLIENTS):
        (update,) = worker.do(work, Unit((client,), summed=False)).retained
        assert bits(update.delta) == once[client]


def test_models_that_draw_are_not_stacked():
    for kind, make in modules.DRAWING.items():
        if kind != "nested":
            reason = why_not_stackable(make(), (1, 2, 3))
            assert "draws random numbers, which a stack would distribute differently" in reason
    functional = modules.Functional()
    before = torch.get_rng_state()
    assert why_not_stackable(functional, (1, 2, 3))
    assert torch.equal(torch.get_rng_state(), before), "trying it out moves nothing"


def test_many_models_are_each_what_it_is_alone():
    make = modules.DRAWING["dropout"]
    model, data = modules.flat(make), tiny.examples(20, 4)
    rows = [torch.arange(12), torch.arange(5, 20)]
    seeds = [torch_generator(1, "batches", 0, k) for k in (0, 1)]
    torch.manual_seed(4)
    found = train_many(model, model.vector.clone(), *data, rows, SETTINGS, generators=seeds)
    for k, mine in enumerate(rows):
        alone, part = modules.flat(make), data.select(mine)
        train_local(alone, *part, SETTINGS, lr=0.1, generator=torch_generator(1, "batches", 0, k))
        assert bits(alone.vector) == bits(found.vectors[k])


def test_dropout_changes_no_order_of_batches():
    """A model that drops nothing out trains as one without such a layer, to the last bit, however it is seeded."""
    found = []
    for make in (lambda: modules.around(nn.Dropout(0.0)), modules.around):
        model = modules.flat(make)
        train_local(model, *tiny.examples(9, 1), SETTINGS, lr=0.1, generator=tiny.generator())
        found.append(bits(model.vector))
    assert found[0] == found[1]


def test_what_cannot_be_known_to_draw_is_refused_by_name_and_nothing_is_left_moved():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    routine = Routine(modules.flat(modules.Functional))
    answers = Worker(routine).do(
        RoundWork(start(modules.Functional), {"round": 1}, (0,)), Unit((0,), summed=False)
    )
    assert answers.failed[0].startswith(
        "refused: the model (Functional) draws from PyTorch's global generator"
    )
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("layer", "draws"),
    [
        (nn.Dropout(0.1), True),
        (nn.Dropout(0.0), False),
        (nn.Dropout2d(0.1), True),
        (nn.FeatureAlphaDropout(0.1), True),
        (nn.LSTM(3, 3, num_layers=2, dropout=0.1), True),
        (nn.LSTM(3, 3), False),
        (nn.MultiheadAttention(4, 2, dropout=0.2), True),
        (nn.MultiheadAttention(4, 2), False),
        (nn.TransformerEncoderLayer(4, 2), True),
        (nn.TransformerEncoderLayer(4, 2, dropout=0.0), False),
        (nn.RReLU(), True),
        (nn.FractionalMaxPool2d(2, output_ratio=0.5), True),
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.GELU()), False),
        (modules.Functional(), None),
        (modules.Declared(), True),
        (modules.Attention(), True),
    ],
)
def test_which_layers_draw(layer, draws):
    assert draws_at_random(layer) is draws


@pytest.mark.slow
def test_layers_of_torchvision_that_draw():
    from torchvision.ops import DropBlock2d, StochasticDepth

    assert draws_at_random(nn.Sequential(StochasticDepth(0.1, "row"))) is True
    assert draws_at_random(nn.Sequential(DropBlock2d(0.1, 3))) is True
    assert not draws_at_random(nn.Sequential(StochasticDepth(0.0, "row")))


def test_attention_is_repeatable():
    assert after_a_round(modules.Attention) == after_a_round(modules.Attention, workers=2, seed=5)


def test_an_error_puts_the_generators_back_and_lets_others_draw():
    model = modules.flat(modules.DRAWING["dropout"])
    before = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), own_draws(model, tiny.generator()):
        torch.rand(3)
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), before)
    entered = threading.Event()

    def enter():
        with own_draws(model, tiny.generator()):
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join(timeout=10)
    assert entered.is_set()


def test_a_model_that_draws_nothing_is_in_nobodys_way():
    model = tiny.flat()
    assert model.draws is False
    with own_draws(model, tiny.generator()):
        torch.rand(1)  # somebody else's, in another thread for instance
    unknown = FlatModel(modules.Ending())
    assert unknown.draws is None
    with pytest.raises(UserError, match="draws_at_random = True"), own_draws(unknown, tiny.generator()):
        torch.rand(1)
