"""A stack ends where its models would end one by one."""

import gc
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedunlearn.models.flat import FlatModel
from fedunlearn.training import Feed, NotStackableError, StackTrainer, train_stack
from tests.profiles import some
from tests.training.stacks import CLASSES, OPTIMIZERS, clients, generators, network, one_by_one, train_config


def rate(config):
    return 0.1 if config.optimizer == "sgd" else 1e-3


def compare(model, start, images, labels, config, *, tolerance, at_once=None):
    """Train both ways and compare weights, losses and numbers of examples."""
    expected, losses = one_by_one(model, start, images, labels, config, lr=rate(config))
    counts = [len(mine) for mine in labels]
    feed = Feed(torch.cat(images), torch.cat(labels), counts, config, generators(len(images)))
    result = StackTrainer(model).train(start, feed, config, lr=rate(config), at_once=at_once)
    assert (result.vectors - expected).abs().max() <= tolerance
    assert result.losses == pytest.approx(losses, rel=1e-4 if tolerance > 1e-9 else 1e-9)
    assert result.num_examples == [len(mine) for mine in labels]
    assert not torch.equal(result.vectors[0], start.expand(len(images), -1)[0])


@given(
    counts=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    batch_size=st.integers(1, 24),
    epochs=st.integers(1, 3),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    hidden=st.lists(st.integers(1, 9), max_size=2).map(tuple),
    at_once=st.none() | st.integers(1, 5),
    own=st.booleans(),
)
@some
def test_any_stack_of_any_sizes_with_any_optimiser(
    counts, batch_size, epochs, optimizer, hidden, at_once, own
):
    """In double precision, where rounding cannot be mistaken for another computation."""
    config = train_config(batch_size=batch_size, local_epochs=epochs, **OPTIMIZERS[optimizer])
    model = network("mlp", hidden=hidden, dtype=torch.float64)
    images, labels = clients(counts, dtype=torch.float64)
    start = model.vector.clone()
    if own:
        start = start + torch.linspace(-0.3, 0.3, len(counts), dtype=torch.float64).unsqueeze(1)
    compare(model, start, images, labels, config, tolerance=1e-9, at_once=at_once)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("at_once", [None, 3])
def test_convolutions_of_unequal_clients(optimizer, at_once):
    config = train_config(local_epochs=2, **OPTIMIZERS[optimizer])
    model = network(dtype=torch.float64, channels=3)
    images, labels = clients([5, 30, 8, 17, 1, 24], dtype=torch.float64, channels=3)
    compare(model, model.vector.clone(), images, labels, config, tolerance=1e-9, at_once=at_once)


@pytest.mark.parametrize("counts", [[32] * 10, [32, 7, 64, 20, 1, 40]])
@pytest.mark.parametrize("optimizer", ["sgd", "sgd, both"])
@pytest.mark.parametrize("architecture", ["mlp", "small-cnn"])
def test_an_epoch_in_single_precision_is_within_the_stated_tolerance(architecture, optimizer, counts):
    config = train_config(batch_size=32, **OPTIMIZERS[optimizer])
    model = network(architecture)
    compare(model, model.vector.clone(), *clients(counts), config, tolerance=1e-5)


@pytest.mark.slow
def test_a_residual_network():
    config = train_config(batch_size=2)
    model = network("resnet18", dtype=torch.float64, channels=3)
    images, labels = clients([2, 3], dtype=torch.float64, channels=3)
    compare(model, model.vector.clone(), images, labels, config, tolerance=1e-9, at_once=2)


class Unusual(nn.Module):
    """Layers that no stacked sibling is written for, and a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(64))
        self.norm = nn.LayerNorm(64)
        self.out = nn.Linear(64, CLASSES)

    def forward(self, images):
        return self.out(torch.softmax(self.norm(images.flatten(1) * self.scale), dim=1))


def test_layers_of_any_kind():
    torch.manual_seed(0)
    model = FlatModel(Unusual(), dtype=torch.float64)
    config = train_config(momentum=0.9, weight_decay=1e-2)
    images, labels = clients([5, 30, 8], dtype=torch.float64)
    compare(model, model.vector.clone(), images, labels, config, tolerance=1e-9, at_once=3)


# -- one client cannot harm another --------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [[8, 8, 8, 8], [5, 20, 9, 17], [20, 3, 20, 20]])
@pytest.mark.parametrize("architecture", ["mlp", "small-cnn"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
def test_poisoned_data_stay_with_their_client(architecture, poison, counts):
    config = train_config(momentum=0.9)
    model = network(architecture)
    start = model.vector.clone()
    images, labels = clients(counts)

    def train():
        return train_stack(model, start, images, labels, config, lr=0.1, generators=generators(4))

    healthy = train().vectors.clone()
    images[1][-1] = poison
    result = train()
    for k in (0, 2, 3):
        assert torch.allclose(result.vectors[k], healthy[k], rtol=0, atol=1e-6)
        assert result.losses[k] < 1e3
    assert not torch.allclose(result.vectors[1], healthy[1], rtol=0, atol=1e-3, equal_nan=True)


def test_poisoned_weights_stay_with_their_model():
    model, (images, labels) = network(), clients([5, 20, 9])
    start = model.vector.repeat(3, 1)
    start[2, 7] = float("nan")
    result = train_stack(model, start, images, labels, train_config(), lr=0.1, generators=generators(3))
    assert [bool(row.isfinite().all()) for row in result.vectors] == [True, True, False]


# -- what stays from call to call -----------------------------------------------------------------------------


def test_calls_of_all_kinds_follow_one_another():
    """A trainer remembers memory, not results: sizes, settings and starts may change from call to call."""
    model = network(dtype=torch.float64)
    start = model.vector.clone()
    for counts, changes in (
        ([8, 8], {}),
        ([3, 30, 9], {"momentum": 0.9}),
        ([8, 8], {"optimizer": "adam"}),
        ([20], {}),
        ([9, 3, 30], {"batch_size": 3}),
        ([8, 8], {}),
    ):
        config = train_config(**changes)
        images, labels = clients(counts, dtype=torch.float64)
        expected, _ = one_by_one(model, start, images, labels, config, lr=rate(config))
        result = train_stack(
            model, start, images, labels, config, lr=rate(config), generators=generators(len(counts))
        )
        assert (result.vectors - expected).abs().max() <= 1e-9


def test_repeated_calls_give_the_same_bits_and_use_the_same_memory():
    model, (images, labels), config = network(), clients([9, 20, 20]), train_config()
    start = model.vector.clone()
    runs, places = [], set()
    for _ in range(3):
        result = train_stack(model, start, images[1:], labels[1:], config, lr=0.1, generators=generators(2))
        runs.append(result.vectors.clone())
        places.add(result.vectors.data_ptr())
        result.vectors.fill_(float("nan"))  # the caller may
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2])
    assert len(places) == 1


def test_the_model_and_the_data_are_left_as_they_were():
    model, (images, labels) = network(), clients([9, 20])
    before = [t.clone() for t in (model.vector, *images, *labels)]
    start = model.vector + 0.1
    kept = start.clone()
    model.module.eval()
    train_stack(model, start, images, labels, train_config(), lr=0.1, generators=generators(2))
    assert all(torch.equal(a, b) for a, b in zip((model.vector, *images, *labels), before, strict=True))
    assert torch.equal(start, kept)
    assert not model.module.training


def test_a_trainer_goes_with_its_model():
    model, (images, labels) = network("mlp"), clients([4, 4])
    train_stack(model, model.vector, images, labels, train_config(), lr=0.1, generators=generators(2))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


# -- what is given --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 10), (2, 9), (9,), ()])
def test_a_start_of_another_shape_is_refused(shape):
    model, (images, labels) = network("mlp"), clients([4, 4])
    with pytest.raises(
        ValueError, match=r"a stack of 2 models starts from weights of shape \(\d+,\) or \(2, "
    ):
        train_stack(
            model, torch.zeros(shape), images, labels, train_config(), lr=0.1, generators=generators(2)
        )


def test_batch_statistics_are_refused():
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, CLASSES))
    model, (images, labels) = FlatModel(module), clients([4, 4])
    with pytest.raises(NotStackableError, match=r"layer '1' \(BatchNorm2d\) has the buffer 'running_mean'"):
        train_stack(model, model.vector, images, labels, train_config(), lr=0.1, generators=generators(2))
