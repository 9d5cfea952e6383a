"""Drawing a model's initial weights from a generator of our own.

PyTorch's layers draw their weights from the global generator as they are constructed. Here a model is
constructed without storage (device ``meta``), which draws nothing, and then filled layer by layer.
"""

import math

import torch
from torch import nn


def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Fill every parameter and buffer of `model`, layer by layer in the order of ``model.modules()``.

    Convolutions: He normal, fan-out, as ResNets have it; linear layers and biases: uniform ± 1/√fan-in,
    PyTorch's own; normalisation: identity.

    Raises
    ------
    TypeError
        The model has a kind of layer with parameters that is not listed here; it would keep whatever its
        memory held before.
    """
    for layer in model.modules():
        match layer:
            case nn.Conv2d():
                nn.init.kaiming_normal_(
                    layer.weight, mode="fan_out", nonlinearity="relu", generator=generator
                )
                _uniform_bias(layer, generator)
            case nn.Linear():
                bound = 1 / math.sqrt(layer.in_features)
                nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
                _uniform_bias(layer, generator)
            case nn.GroupNorm() | nn.BatchNorm2d():
                layer.reset_parameters()  # ones and zeros: draws nothing
            case _:
                own = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
                if own:
                    raise TypeError(
                        f"initialise() does not know how to fill a {type(layer).__name__}; add it there"
                    )


def _uniform_bias(layer: nn.Conv2d | nn.Linear, generator: torch.Generator) -> None:
    if layer.bias is not None:
        bound = 1 / math.sqrt(layer.weight[0].numel())
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
