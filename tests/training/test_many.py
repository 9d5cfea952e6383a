"""Many models on rows of one dataset: the same as each alone."""

import pytest
import torch
from torch import nn

from fedunlearn.models.flat import FlatModel
from fedunlearn.training import many, train_local, train_many
from tests.training.stacks import CLASSES, clients, generator, generators, network, train_config

ROWS = [[0, 1, 2, 3, 4], list(range(30, 3, -1)), [7, 7, 39], list(range(0, 40, 2)), [12]]


def dataset(dtype=torch.float64):
    images, labels = clients([40], dtype=dtype)
    return images[0], labels[0]


def rows():
    return [torch.tensor(each) for each in ROWS]


def alone(model, start, images, labels, config, lr):
    """Every model by itself, as the docstring says."""
    vectors, losses, ends, buffers = [], [], [], model.buffers()
    for k, draw in enumerate(generators(len(ROWS))):
        model.load(start[k], buffers)
        mine = rows()[k]
        result = train_local(model, images[mine], labels[mine], config, lr=lr, generator=draw)
        vectors.append(model.vector.clone())
        losses.append(result.loss)
        ends.append(model.buffers())
    return torch.stack(vectors), losses, ends


def starts(model):
    return 0.3 * torch.randn(len(ROWS), model.num_parameters, generator=generator(9), dtype=torch.float64)


def batch_norm():
    torch.manual_seed(0)
    return FlatModel(
        nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, CLASSES)),
        dtype=torch.float64,
    )


@pytest.mark.parametrize("at_once", [None, 1, 2, 5, 100])
@pytest.mark.parametrize("architecture", ["mlp", "small-cnn"])
def test_however_many_at_once(architecture, at_once):
    config = train_config(local_epochs=3, momentum=0.9)
    model, (images, labels) = network(architecture, dtype=torch.float64), dataset()
    start = starts(model)
    expected, losses, _ = alone(model, start, images, labels, config, lr=0.1)
    result = train_many(
        model, start, images, labels, rows(), config, generators=generators(len(ROWS)), at_once=at_once
    )
    assert (result.vectors - expected).abs().max() <= 1e-9
    assert result.losses == pytest.approx(losses, rel=1e-9)
    assert result.num_examples == [len(each) for each in ROWS]


def test_bit_for_bit_where_it_is_done_one_by_one():
    config = train_config(optimizer="adam")
    model, (images, labels) = network(), dataset(torch.float32)
    start = starts(model).float()
    expected, losses, _ = alone(model, start, images, labels, config, lr=1e-3)
    result = train_many(
        model, start, images, labels, rows(), config, generators=generators(len(ROWS)), lr=1e-3, at_once=1
    )
    assert torch.equal(result.vectors, expected)
    assert result.losses == losses


@pytest.mark.parametrize("at_once", [None, 4])
def test_what_cannot_be_stacked_is_trained_one_by_one_each_from_the_first_buffers(at_once):
    config = train_config(local_epochs=2)
    model, reference, (images, labels) = batch_norm(), batch_norm(), dataset()
    for each in (model, reference):
        each.module[1].running_mean.fill_(0.5)
    start = starts(model)
    expected, _, ends = alone(reference, start, images, labels, config, lr=0.1)
    result = train_many(
        model, start, images, labels, rows(), config, generators=generators(len(ROWS)), at_once=at_once
    )
    assert torch.equal(result.vectors, expected)
    for found, end in zip(result.buffers, ends, strict=True):
        assert found.keys() == end.keys() and all(torch.equal(found[name], end[name]) for name in end)


@pytest.mark.parametrize("make", [batch_norm, lambda: network(dtype=torch.float64)])
def test_the_model_ends_as_it_was(make):
    model, (images, labels) = make(), dataset()
    vector, buffers = model.vector.clone(), model.buffers()
    train_many(model, starts(model), images, labels, rows(), train_config(), generators=generators(len(ROWS)))
    assert torch.equal(model.vector, vector)
    assert all(torch.equal(value, buffers[name]) for name, value in model.buffers().items())


def test_one_start_for_all_and_the_rate_of_the_settings():
    model, (images, labels) = network("mlp", dtype=torch.float64), dataset()
    config = train_config(lr=0.2, lr_decay=0.5)
    start = model.vector.clone()
    expected, _, _ = alone(model, start.repeat(len(ROWS), 1), images, labels, config, lr=0.2)
    for at_once in (1, 5):
        result = train_many(
            model, start, images, labels, rows(), config, generators=generators(len(ROWS)), at_once=at_once
        )
        assert (result.vectors - expected).abs().max() <= 1e-9


def test_large_models_are_trained_one_by_one(monkeypatch):
    """A step of resnet18 fills the caches several times over."""
    called = []
    monkeypatch.setattr(many, "train_local", lambda *args, **options: called.append(1) or _nothing())
    model, (images, labels) = network("resnet18", size=32), clients([2], size=32)
    train_many(
        model,
        model.vector,
        images[0],
        labels[0],
        [torch.tensor([0])],
        train_config(),
        generators=[generator(0)],
    )
    assert called


def _nothing():
    from fedunlearn.training import LocalResult

    return LocalResult(1, 0.0)
