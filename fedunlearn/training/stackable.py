"""Whether, and how, many models of an architecture go forward at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import vmap

from fedunlearn.models.draws import draws_itself
from fedunlearn.models.global_generators import kept_generators
from fedunlearn.training.grouped import Grouped, can_group
from fedunlearn.training.parameterless import fill, hollow
from fedunlearn.training.recipe import CLASSIFY, Recipe

TOLERANCE = 1e-3
"""Largest difference between logits, over the largest logit, that is rounding and not another computation."""


class NotStackableError(ValueError):
    """The architecture cannot be trained in a stack; the message says why, in one line."""


class StackForward(Protocol):
    """The forward pass of many models of one architecture."""

    def load(self, weights: Sequence[Tensor]) -> None:
        """Take over the weights, per parameter (B, *shape): references, not copies."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """Return logits (B, classes, n) of images (n, B, channels, height, width)."""
        ...


class Vmapped:
    """``torch.func.vmap`` over the architecture: slower than :class:`Grouped`, but for layers of any kind."""

    def __init__(self, module: nn.Module) -> None:
        twin, slots = hollow(module)
        self._weights: Sequence[Tensor] = ()

        def one(weights: Sequence[Tensor], images: Tensor) -> Tensor:
            fill(slots, weights)
            logits: Tensor = twin(images)
            return logits

        self._all = vmap(one, in_dims=(0, 1))

    def load(self, weights: Sequence[Tensor]) -> None:
        self._weights = weights

    def __call__(self, images: Tensor) -> Tensor:
        return self._all(self._weights, images).transpose(1, 2)


def why_not_stackable(
    module: nn.Module, image_shape: Sequence[int] | None = None, recipe: Recipe = CLASSIFY
) -> str:
    """Return in one line why many of these models cannot be trained at once, or an empty string if they can.

    Parameters
    ----------
    module
        The architecture.
    image_shape
        Of one image, (channels, height, width). If given, stacks of two models are tried out as well, which
        finds out about layers that nobody thought of.
    recipe
        What they are to be trained with.
    """
    if reason := why_not_this_loss(recipe):
        return reason
    for name, layer in module.named_modules():
        where = f"layer {name!r} ({type(layer).__name__})" if name else f"the model ({type(layer).__name__})"
        for buffer, value in layer.named_buffers(recurse=False):
            if value is not None:
                return f"{where} has the buffer {buffer!r}, which each client would need its own copy of"
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            return f"{where} looks at a whole batch, but in a stack short batches are padded"
        if draws_itself(layer):
            return f"{where} draws random numbers, which a stack would distribute differently"
    if not any(True for _ in module.parameters()):
        return "the model has no parameters"
    if image_shape is not None:
        try:
            stack_forward(module, image_shape)
        except NotStackableError as error:
            return str(error)
    return ""


def why_not_this_loss(recipe: Recipe) -> str:
    """Return in one line why a stack cannot be trained with the recipe's loss, or an empty string if it can."""
    if recipe.loss is F.cross_entropy:
        return ""
    name = getattr(recipe.loss, "__name__", type(recipe.loss).__name__)
    return f"the loss {name!r} is not cross-entropy, the only one that a stack computes"


def stack_forward(module: nn.Module, image_shape: Sequence[int]) -> StackForward:
    """Return the fastest forward pass of many such models that gives what each of them gives alone.

    This is tried out on two models with random weights, not assumed: an architecture's own ``forward`` can do
    anything.

    Raises
    ------
    NotStackableError
        If there is none.
    """
    if reason := why_not_stackable(module):
        raise NotStackableError(reason)
    reason = "stacked models give different outputs than each alone"
    for kind in (Grouped, Vmapped) if can_group(module) else (Vmapped,):
        try:
            forward: StackForward = kind(module)
            with kept_generators(next(module.parameters()).device):
                if _agrees(forward, module, image_shape):
                    return forward
        except Exception as error:  # whatever a forward of somebody else's raises
            reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise NotStackableError(f"{type(module).__name__} does not run as a stack: {reason}")


@torch.no_grad()
def _agrees(forward: StackForward, module: nn.Module, image_shape: Sequence[int]) -> bool:
    """Whether two models in a stack answer as each does alone, also if their batch is filled up."""
    draw = torch.Generator().manual_seed(0)
    like = next(module.parameters())
    weights = []
    for p in module.parameters():
        values = torch.randn(2, *p.shape, generator=draw).to(like)
        # Like an initialisation: logits of order 1, whatever the depth.
        weights.append(values * (2 / p[0].numel()) ** 0.5 if p.dim() > 1 else 1 + 0.1 * values)
    images = torch.randn(3, 2, *image_shape, generator=draw).to(like)
    twin, slots = hollow(module)
    alone = []
    for i in (0, 1):
        fill(slots, [values[i] for values in weights])
        logits = twin(images[:, i])
        if logits.dim() != 2:
            raise NotStackableError("only classifiers do, and it gives an image more than a logit per class")
        alone.append(logits.t())
    expected = torch.stack(alone)
    forward.load(weights)
    found = forward(torch.cat([images, images[-1:]]))[:, :, :3]
    if found.shape != expected.shape:
        return False
    worst = (found - expected).abs().max() / expected.abs().max()
    return bool(worst <= TOLERANCE)
