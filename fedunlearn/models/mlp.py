"""A multi-layer perceptron: the smallest model that learns, for tests and for many small clients."""

from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from fedunlearn.config.conditions import Count
from fedunlearn.config.settings import ModelSettings


@dataclass(frozen=True)
class MLPSettings(ModelSettings):
    """Widths of the hidden layers."""

    hidden: tuple[Count, ...] = (64,)


def mlp(num_classes: int, in_channels: int, image_size: int, settings: MLPSettings) -> nn.Module:
    """Multi-layer perceptron on flattened pixels, model.hidden units per hidden layer, ReLU.

    Input (n, in_channels, image_size, image_size), output logits (n, num_classes). Without any the model is
    softmax regression.
    """
    widths = (in_channels * image_size**2, *settings.hidden)
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], num_classes))
