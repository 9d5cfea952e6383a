"""How many models at once: more of small ones, fewer the more each needs."""

import torch
from torch import nn

from fedunlearn.training.stack_size import CACHE, bytes_per_model, stack_size
from tests.training.stacks import CLASSES, network, train_config

SHAPE = (1, 28, 28)


def cnn():
    return network(size=28).module


def test_what_a_linear_layer_needs():
    """100 weights in three copies, and per row 20 inputs kept (once flat) and what cross-entropy is not told."""
    layer = nn.Linear(20, 5, bias=False)
    config = train_config(batch_size=10)
    assert bytes_per_model(layer, (20,), config) == 4 * (3 * 100 + 1.5 * 10 * 20)


def test_optimisers_remember():
    layer, config = nn.Linear(20, 5, bias=False), train_config(batch_size=10)
    plain = bytes_per_model(layer, (20,), config)
    for changes, vectors in (({"momentum": 0.9}, 1), ({"optimizer": "adam"}, 2), ({"optimizer": "adamw"}, 2)):
        more = bytes_per_model(layer, (20,), train_config(batch_size=10, **changes))
        assert more == plain + vectors * 4 * 100


def test_larger_batches_and_wider_numbers_leave_room_for_fewer():
    sizes = [
        stack_size(cnn(), SHAPE, train_config(batch_size=8)),
        stack_size(cnn(), SHAPE, train_config(batch_size=32)),
        stack_size(cnn().double(), SHAPE, train_config(batch_size=32)),
    ]
    assert sizes[0] > sizes[1] > sizes[2] >= 1
    assert sizes[1] * bytes_per_model(cnn(), SHAPE, train_config(batch_size=32)) <= CACHE


def test_small_models_come_in_large_stacks_and_a_large_one_alone():
    config = train_config(batch_size=32)
    assert stack_size(network("mlp", hidden=(64,)).module, (1, 8, 8), config) >= 100
    assert stack_size(network("resnet18", channels=3).module, (3, 32, 32), config) == 1


def test_asking_changes_nothing():
    module = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(784, CLASSES)).eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    stack_size(module, SHAPE, train_config())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not module.training
    assert all(p.grad is None for p in module.parameters())
