"""Whether a module draws at random while it trains, as dropout does."""

from __future__ import annotations

import sys

from torch import nn


def draws_at_random(module: nn.Module) -> bool | None:
    """Return whether a module draws in training: a layer of it is known to, or has ``draws_at_random = True``.

    None: it has layers that are not PyTorch's own, of which nobody knows before they are run.
    """
    if any(draws_itself(layer) for layer in module.modules()):
        return True
    known = all(type(layer).__module__.startswith("torch.nn.") for layer in module.modules())
    return False if known else None


def draws_itself(layer: nn.Module) -> bool:
    """Whether this one layer does, whatever is in it."""
    match layer:
        case nn.modules.dropout._DropoutNd():
            return layer.p > 0
        case nn.MultiheadAttention() | nn.RNNBase():
            return layer.dropout > 0
        case nn.RReLU() | nn.FractionalMaxPool2d() | nn.FractionalMaxPool3d():
            return True
    # A model has none of torchvision's layers if nobody has imported it yet, which takes seconds.
    theirs = getattr(sys.modules.get("torchvision"), "ops", None)
    if theirs is not None and isinstance(layer, (theirs.StochasticDepth, theirs.DropBlock2d)):
        return bool(layer.p > 0)
    return bool(getattr(layer, "draws_at_random", False))
