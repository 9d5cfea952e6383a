"""A multi-layer perceptron: the smallest model that learns, for tests and for many small clients."""

from itertools import pairwise

from torch import nn


def mlp(num_classes: int, in_channels: int, image_size: int, hidden: tuple[int, ...]) -> nn.Module:
    """Multi-layer perceptron on flattened pixels, model.hidden units per hidden layer, ReLU.

    Input (n, in_channels, image_size, image_size), output logits (n, num_classes). An empty `hidden` gives
    softmax regression.
    """
    widths = (in_channels * image_size**2, *hidden)
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], num_classes))
