"""Models and data so small that an oracle can go through them example by example."""

import copy

import torch
from torch import nn

from fedunlearn.models.flat import FlatModel
from fedunlearn.unlearning import Examples

CLASSES = 4
FEATURES = 6


def examples(count: int, seed: int, *, label: int | None = None) -> Examples:
    """Return random images (n, 1, 2, 3) in float64; with ``label`` all of that class."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 2, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    return Examples(images, labels if label is None else torch.full((count,), label))


def network(seed: int = 0, *, norm: bool = False) -> nn.Module:
    """Return a network with one hidden layer, in float64; with ``norm`` it has buffers."""
    torch.manual_seed(seed)
    layers = [nn.Flatten(), nn.Linear(FEATURES, 5), *([nn.BatchNorm1d(5)] if norm else []), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(5, CLASSES)).double()


def flat(seed: int = 0, *, norm: bool = False) -> FlatModel:
    return FlatModel(network(seed, norm=norm), dtype=torch.float64)


def plain_copy(model: FlatModel) -> nn.Module:
    """Return an ordinary module with the same weights, for an oracle to train."""
    return copy.deepcopy(model.module)


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
