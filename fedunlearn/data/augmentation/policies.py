"""The augmentation policies of the literature, as torchvision's v2 transforms have them, image by image.

Those transforms draw from torch's global generator, which all threads of a process share. While an image of ours is
changed, what they draw comes from a generator of our own instead, seeded with the image's number: the result is
that of the transform called on the image alone after ``torch.manual_seed`` with the same number, and the global
generator is neither read nor moved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fedunlearn.data.augmentation.protocol import only_labels
from fedunlearn.data.pixels import Pixels

SEEDS = 2**53
"""Whole numbers below it are kept by a double, which a table of parameters is made of."""

RANDOM = frozenset(
    (
        *("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "_sample_dirichlet"),
        *("uniform_", "normal_", "random_", "bernoulli_", "exponential_"),
    )
)
"""Names of torch's functions that draw."""


class DrawingFrom(TorchFunctionMode):
    """While the context lasts, what this thread draws comes from a given generator."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_function__(
        self, function: Any, types: Any, arguments: Any = (), options: dict[str, Any] | None = None
    ) -> Any:
        options = options or {}
        if getattr(function, "__name__", "") in RANDOM:
            options = {**options, "generator": self._generator}
        return function(*arguments, **options)


@dataclass(frozen=True)
class Policy:
    """One transform with torchvision's defaults, called on the processor, on one image after the other.

    A row of parameters: the seed of what is drawn for the image.

    Attributes
    ----------
    name : str
        See ``TRANSFORMS``.
    pixels : Pixels or None
        Images are brought back to 256 levels first, uint8, and normalised afterwards: there the transforms of
        colours are defined. None: the transform is applied to normalised images.
    """

    name: str
    pixels: Pixels | None

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Return ``n`` seeds."""
        return torch.randint(SEEDS, (n, 1), generator=generator).double()

    def apply(self, images: Tensor, targets: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return images of the same shape, and the labels as they are."""
        only_labels(targets, self.name)
        if not len(images):
            return images, targets
        transform, generator = _transform(self.name), torch.Generator()
        shown = (images if self.pixels is None else self.pixels.levels(images)).cpu()
        changed = []
        with DrawingFrom(generator):
            for image, seed in zip(shown, parameters[:, 0].long().tolist(), strict=True):
                generator.manual_seed(seed)
                changed.append(transform(image))
        found = torch.stack(changed)
        if self.pixels is None:
            return found.to(images.device), targets
        return self.pixels.normalise(found, images), targets


def _auto_augment(v2: Any) -> Any:
    return v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)


TRANSFORMS: dict[str, Callable[[Any], Any]] = {
    "randaugment": lambda v2: v2.RandAugment(),
    "autoaugment": _auto_augment,
    "random-erasing": lambda v2: v2.RandomErasing(),
    "augmix": lambda v2: v2.AugMix(),
    "trivialaugment": lambda v2: v2.TrivialAugmentWide(),
}
"""By name, how the transform is made of ``torchvision.transforms.v2``."""


@cache
def _transform(name: str) -> Any:
    from torchvision.transforms import v2  # lazily: slow to import, and only needed here

    return TRANSFORMS[name](v2)
