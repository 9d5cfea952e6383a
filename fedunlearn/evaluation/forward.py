"""Running a model over images without leaving a trace on it, and without running out of memory."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

MOST_IMAGES = 500
MOST_PIXELS = MOST_IMAGES * 64 * 64
"""Of one forward pass. Activations grow with the pixels, so that larger images come in smaller batches."""


def evaluation_batch(image_shape: Sequence[int]) -> int:
    """Return how many images of a shape (..., height, width) an evaluation runs at once.

    500 up to 64 × 64 pixels, so many fewer of larger ones that the pixels stay as many, and at least 1. Part
    of the numerics: another size may change the last bits.
    """
    height, width = image_shape[-2:]
    return max(1, min(MOST_IMAGES, MOST_PIXELS // (height * width)))


def batches(
    model: nn.Module, images: Tensor, batch_size: int | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Yield the rows of each batch and the model's logits of them, in evaluation mode and without gradients.

    Each module's training flag is put back when the last batch was taken, also when the model raises or the
    caller stops early.

    Parameters
    ----------
    batch_size : int, optional
        Images per forward pass. Default: ``evaluation_batch`` of their shape, or of that to which the model
        enlarges them (its ``input_size``, if it has one).
    """
    side: int = getattr(model, "input_size", 0)
    size = batch_size or evaluation_batch([max(side, pixels) for pixels in images.shape[-2:]])
    with evaluating(model):
        for first in range(0, len(images), size):
            rows = slice(first, first + size)
            with torch.no_grad():  # not around the yield: the caller's own gradients are not our business
                logits = model(images[rows])
            yield rows, logits


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for as long as the context lasts."""
    # Per module, because a model may keep some of its layers (frozen normalisation) in evaluation mode.
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, flag in training.items():
            module.training = flag
