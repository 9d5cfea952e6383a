"""Modules that people bring: with dropout, frozen layers, tied weights, BatchNorm of other kinds."""

import torch
import torch.nn.functional as F
from torch import nn

from fedunlearn.models.flat import FlatModel
from tests.unlearning.tiny import CLASSES, FEATURES


class Functional(nn.Module):
    """Dropout as a function: nobody can tell from its layers."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(FEATURES, 5), nn.Linear(5, CLASSES)

    def forward(self, images):
        return self.head(F.dropout(self.hidden(images.flatten(1)).tanh(), 0.5, self.training))


class Declared(Functional):
    draws_at_random = True


class Attention(nn.Module):
    """Dropout in attention, which has no layer of its own."""

    def __init__(self):
        super().__init__()
        self.attention, self.head = (
            nn.MultiheadAttention(FEATURES, 2, 0.5, batch_first=True),
            nn.Linear(6, CLASSES),
        )

    def forward(self, images):
        rows = images.flatten(1)[:, None].expand(-1, 3, -1)
        return self.head(self.attention(rows, rows, rows, need_weights=False)[0].mean(1))


class Twice(nn.Module):
    """The last layer is run twice."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear(FEATURES, CLASSES), nn.Linear(CLASSES, CLASSES)

    def forward(self, images):
        return self.head(self.head(self.hidden(images.flatten(1))).tanh())


class Tied(nn.Module):
    """The last layer has the weight of another."""

    def __init__(self):
        super().__init__()
        self.hidden, self.inner, self.head = (
            nn.Linear(FEATURES, CLASSES),
            nn.Linear(CLASSES, CLASSES),
            nn.Linear(CLASSES, CLASSES),
        )
        self.head.weight = self.inner.weight

    def forward(self, images):
        return self.head(self.inner(self.hidden(images.flatten(1))).tanh())


class Ending(nn.Module):
    """It ends in something that is no linear layer."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(FEATURES, CLASSES)

    def forward(self, images):
        return 2 * self.body(images.flatten(1))


def around(*middle):
    """Return a network with some layers between its two linear ones."""
    return nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, 5), *middle, nn.Tanh(), nn.Linear(5, CLASSES))


def computed():
    module = around()
    nn.utils.parametrizations.weight_norm(module[-1])
    return module


DRAWING = {
    "dropout": lambda: around(nn.Dropout(0.5)),
    "alpha dropout": lambda: around(nn.AlphaDropout(0.3)),
    "rrelu": lambda: around(nn.RReLU()),
    "nested": lambda: nn.Sequential(around(nn.Sequential(nn.Dropout(0.2)))),
    "declared": Declared,
}
HEADS = {"twice": Twice, "tied": Tied, "computed": computed, "ending": Ending}


def flat(make, seed=0):
    """Return a model whose weights the seed draws, and leave the global generator as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FlatModel(make().double(), dtype=torch.float64)
