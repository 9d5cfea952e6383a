"""The memory that a model's activations take, measured on a few images."""

from __future__ import annotations

from typing import Any
from weakref import finalize

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fedunlearn.evaluation.forward import evaluating
from fedunlearn.models.flat import FlatModel
from fedunlearn.models.global_generators import kept_generators
from fedunlearn.randomness import torch_generator
from fedunlearn.training import Recipe

FEW, MORE = 2, 4
"""Images that are tried; BatchNorm needs two. What both have in common does not grow with the batch."""
IN_PASSING = 2
"""Of the largest activation there are so many more during the backward pass: the gradients of a layer's two sides."""


def of_training(model: FlatModel, images: Tensor, targets: Tensor, recipe: Recipe) -> tuple[int, float]:
    """Return the bytes of a training step's activations: constant, and for each image of a batch.

    Parameters
    ----------
    model
        Its ``forward`` is measured, with its precision; buffers may move.
    images, targets
        The training data, of which a few are taken.
    """
    few, more = (saved_bytes(model, images, targets, recipe, n) for n in (FEW, MORE))
    per_image = (sum(more) - sum(few)) / (MORE - FEW)
    largest = max((b - a) / (MORE - FEW) for a, b in zip(few, more, strict=False))  # piece by piece
    return max(0, int(sum(few) - FEW * per_image)), per_image + IN_PASSING * largest


def of_evaluation(model: FlatModel, images: Tensor) -> float:
    """Return the bytes of an evaluation's activations for each of its images, where they are most."""
    few, more = (most_alive(model, images, n) for n in (FEW, MORE))
    return (more - few) / (MORE - FEW)


def saved_bytes(model: FlatModel, images: Tensor, targets: Tensor, recipe: Recipe, n: int) -> list[int]:
    """Return the size of each piece of memory that autograd keeps of n images for the backward pass, bytes.

    What several layers keep is there once. The model's own weights are not among them, casts of them are.
    """
    rows = _rows(images, n)
    inputs, labels = images.index_select(0, rows), targets.index_select(0, rows)
    if recipe.augmentation is not None:
        inputs, labels = recipe.augmentation.apply(
            inputs, labels, recipe.augmentation.draw(n, torch_generator(0, "memory"))
        )
    own = model.vector.untyped_storage().data_ptr()
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() != own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.module.train()
    with saved_tensors_hooks(keep, lambda tensor: tensor), kept_generators(model.vector.device):
        recipe.loss(model.forward(inputs), labels)
    return list(kept.values())


def most_alive(model: FlatModel, images: Tensor, n: int) -> int:
    """Return the most bytes of activations that there are at any moment of an evaluation of n images."""
    inputs = images.index_select(0, _rows(images, n))
    alive = _Alive()
    with evaluating(model.module), torch.no_grad(), alive:
        model.module(inputs)
    return alive.most


def _rows(images: Tensor, n: int) -> Tensor:
    return torch.arange(n, device=images.device) % len(images)


class _Alive(TorchDispatchMode):
    """Watches tensors come to life and go, while the context lasts.

    Attributes
    ----------
    now, most : int
        Bytes of those that live, and the most there ever were of them.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._places: set[int] = set()

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        known = {_place(leaf) for leaf in tree_leaves((arguments, options)) if isinstance(leaf, Tensor)}
        result = operation(*arguments, **(options or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and _place(leaf) not in known | self._places:
                self._born(leaf.untyped_storage())
        self.most = max(self.most, self.now)
        return result

    def _born(self, storage: torch.UntypedStorage) -> None:
        self._places.add(storage.data_ptr())
        self.now += storage.nbytes()
        finalize(storage, self._gone, storage.data_ptr(), storage.nbytes()).atexit = False

    def _gone(self, place: int, num_bytes: int) -> None:
        self._places.discard(place)
        self.now -= num_bytes


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
