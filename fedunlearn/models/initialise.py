"""Drawing a model's initial weights from a generator of our own.

PyTorch's layers draw their weights from the global generator as they are constructed. Here a model is
constructed without storage (device ``meta``), which draws nothing, and then filled layer by layer.
"""

import math

import torch
from torch import Tensor, nn

EMBEDDINGS = {"class_token": 0.0, "pos_embedding": 0.02}
"""Standard deviation of what transformers learn beside their layers, by name; ViT's own (arXiv 2010.11929)."""


def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Fill every parameter and buffer of `model`, layer by layer in the order of ``model.modules()``.

    - Convolutions: He normal, fan-out, as ResNets have it. With groups, fan-out counts the channels of one
      group, the only ones that an input reaches.
    - Convolutions whose windows do not overlap (patches), transposed convolutions, linear layers, and all
      biases: uniform ± 1/√fan-in, PyTorch's own.
    - Attention: queries, keys and values together Glorot uniform without bias, PyTorch's own.
    - Normalisation: identity. PReLU: a slope of 1/4.
    - Class tokens and position embeddings: normal, of the widths in :data:`EMBEDDINGS`.

    Raises
    ------
    TypeError
        The model has a kind of layer with parameters or buffers that is not listed here; it would keep whatever
        its memory held before.
    """
    for layer in model.modules():
        match layer:
            case nn.Conv2d() if not _takes_patches(layer):
                _he_normal(layer, generator)
                _uniform(layer.bias, layer.weight, generator)
            case nn.Conv2d() | nn.ConvTranspose2d() | nn.Linear():
                _uniform(layer.weight, layer.weight, generator)
                _uniform(layer.bias, layer.weight, generator)
            case nn.MultiheadAttention() if layer.in_proj_weight is not None and layer.bias_k is None:
                # What it adds up at the end is a linear layer of its own.
                nn.init.xavier_uniform_(layer.in_proj_weight, generator=generator)
                if layer.in_proj_bias is not None:
                    nn.init.zeros_(layer.in_proj_bias)
            case (
                nn.GroupNorm()
                | nn.BatchNorm1d()
                | nn.BatchNorm2d()
                | nn.InstanceNorm2d()
                | nn.LayerNorm()
                | nn.PReLU()
            ):
                layer.reset_parameters()  # constants: draws nothing
            case _ if getattr(layer, "nothing_to_draw", False):
                pass  # its buffers are no weights, and stay as they are
            case _:
                _embeddings(layer, generator)


def _takes_patches(layer: nn.Conv2d) -> bool:
    """Whether it is a linear layer on patches that do not overlap."""
    return layer.kernel_size == layer.stride != (1, 1)


def _he_normal(layer: nn.Conv2d, generator: torch.Generator) -> None:
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
    if layer.groups > 1:
        with torch.no_grad():
            layer.weight.mul_(math.sqrt(layer.groups))


def _uniform(values: Tensor | None, weight: Tensor, generator: torch.Generator) -> None:
    if values is not None:
        bound = 1 / math.sqrt(weight[0].numel())
        nn.init.uniform_(values, -bound, bound, generator=generator)


def _embeddings(layer: nn.Module, generator: torch.Generator) -> None:
    own = dict([*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)])
    for name, values in own.items():
        if name not in EMBEDDINGS:
            raise TypeError(
                f"initialise() does not know how to fill {name!r} of a {type(layer).__name__}; add it there"
            )
        nn.init.normal_(values, 0.0, EMBEDDINGS[name], generator=generator)
