"""A model's masks on a split, reduced slice by slice while it runs: no pixel outlives its batch."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedunlearn.evaluation import hausdorff
from fedunlearn.evaluation.forward import batches, evaluating
from fedunlearn.evaluation.scored import Floats, Integers, Unmeasurable
from fedunlearn.training.losses import dice_cross_entropy

_Columns = tuple[Integers, Integers, Integers, Floats, Floats, Floats, Floats | None]

FOREGROUND = 1
"""Class of the pixels whose outline the Hausdorff distance is about; 0 is background."""


@dataclass(frozen=True, eq=False)
class SegmentationOutputs:
    """A model's outputs on n slices, in the split's order, as sums over the pixels of each.

    Attributes
    ----------
    overlap, predicted, true : int64 arrays, shape (n, classes)
        Pixels of each class in both masks, in the predicted one, in the true one. Of equal logits the first
        class is predicted.
    loss : float64 array, shape (n,)
        (Cross-entropy, mean over pixels, + soft Dice loss, mean over classes) / 2: what clients minimise.
    confidence, doubt : float64 arrays, shape (n,)
        Mean over pixels of the probability of the true class, and of all others together: doubt is
        1 − confidence without its rounding.
    distance : float64 array, shape (n,), or None
        95 % Hausdorff distance of the foreground in mm, NaN where a mask is empty; None: not measured.

    What is read from it (``Scored``) raises ``Unmeasurable`` where logits were not numbers.
    """

    overlap: Integers
    predicted: Integers
    true: Integers
    loss: Floats
    confidence: Floats
    doubt: Floats
    distance: Floats | None = None

    def __len__(self) -> int:
        return len(self.loss)

    def take(self, indices: npt.ArrayLike) -> Self:
        """Return the outputs of these slices only, in the order given."""
        chosen = np.asarray(indices, dtype=np.int64)
        taken: dict[str, Any] = {}
        for field in fields(self):
            column = getattr(self, field.name)
            taken[field.name] = None if column is None else column[chosen]
        return replace(self, **taken)

    @property
    def num_classes(self) -> int:
        return int(self.overlap.shape[1])

    @property
    def label_array(self) -> Integers:
        raise Unmeasurable("masks have no label mix")

    @cached_property
    def dice(self) -> Floats:
        """Hard Dice of each slice and class in percent, shape (n, classes).

        MONAI's with ``ignore_empty=False``: of a class that neither mask has it is 100, and of one that the
        truth does not have but the prediction has, 0. (The counts are taken here, because MONAI's function
        goes through slices and classes one at a time, and on a GPU waits for each.)
        """
        self._require_numbers()
        pixels = self.predicted + self.true
        return np.where(pixels > 0, 200 * self.overlap / np.maximum(pixels, 1), 100.0)

    @cached_property
    def qualities(self) -> Floats:
        """Mean Dice over the classes, background included, in percent, shape (n,)."""
        values: Floats = self.dice.mean(axis=1)
        return values

    def class_qualities(self) -> list[Floats]:
        """Return the Dice of each class on every slice, in percent."""
        return list(self.dice.T)

    @property
    def losses(self) -> Floats:
        """The loss of each slice in nats, shape (n,)."""
        self._require_numbers()
        return self.loss

    @property
    def confidences(self) -> Floats:
        """Mean probability of a pixel's true class, shape (n,)."""
        self._require_numbers()
        return self.confidence

    @cached_property
    def margins(self) -> Floats:
        """log(c / (1 − c)) of the confidences c, shape (n,); infinite where no pixel leaves any doubt."""
        self._require_numbers()
        with np.errstate(divide="ignore"):
            values: Floats = np.log(self.confidence) - np.log(self.doubt)
        return values

    @property
    def distances(self) -> Floats:
        """95 % Hausdorff distance of each slice in mm, shape (n,); NaN where a mask is empty."""
        if self.distance is None:
            raise Unmeasurable("distances were not measured: not requested, or the slices have no spacing")
        self._require_numbers()
        return self.distance

    @property
    def true_foreground(self) -> Integers:
        """Pixels of the true mask, shape (n,)."""
        return self.true[:, FOREGROUND]

    @property
    def predicted_foreground(self) -> Integers:
        """Pixels of the predicted mask, shape (n,)."""
        self._require_numbers()
        return self.predicted[:, FOREGROUND]

    def _require_numbers(self) -> None:
        if np.isnan(self.loss).any():  # as it is as soon as one pixel's logits are
            raise Unmeasurable("the model's outputs are not finite")


def segment(
    model: nn.Module,
    images: Tensor,
    masks: Tensor,
    *,
    spacing: npt.NDArray[np.floating] | None = None,
    batch_size: int | None = None,
) -> SegmentationOutputs:
    """Run the model once over slices, in evaluation mode and without gradients, and keep sums over pixels.

    Parameters
    ----------
    model : nn.Module
        Gives logits (n, classes, height, width).
    images : Tensor, shape (n, channels, height, width)
        At least one.
    masks : Tensor of integers, shape (n, height, width)
        The true class of each pixel.
    spacing : array, shape (n, 2), optional
        Millimetres per pixel (row, column); given, Hausdorff distances are measured.
    batch_size : int, optional
        Slices per forward pass. Default: by ``evaluation_batch``.

    Raises
    ------
    ValueError
        If the logits are not one per class and pixel of the masks.
    """
    parts = []
    for rows, logits in batches(model, images, batch_size):
        truth = masks[rows].long()
        if logits.ndim != 4 or logits.shape[:1] + logits.shape[2:] != truth.shape:
            raise ValueError(
                f"logits {tuple(logits.shape)} and masks {tuple(truth.shape)}: "
                "must be (n, classes, height, width) and (n, height, width)"
            )
        parts.append(_reduced(logits, truth, None if spacing is None else spacing[rows]))
    overlap, predicted, true, loss, confidence, doubt, distance = zip(*parts, strict=True)
    return SegmentationOutputs(
        overlap=np.concatenate(overlap),
        predicted=np.concatenate(predicted),
        true=np.concatenate(true),
        loss=np.concatenate(loss),
        confidence=np.concatenate(confidence),
        doubt=np.concatenate(doubt),
        distance=None if spacing is None else np.concatenate(distance),
    )


def of_logits(logits: Tensor, masks: Tensor) -> SegmentationOutputs:
    """Return the same of logits at hand, (n, classes, height, width), and masks (n, height, width)."""
    overlap, predicted, true, loss, confidence, doubt, _ = _reduced(logits, masks.long(), None)
    return SegmentationOutputs(overlap, predicted, true, loss, confidence, doubt)


def mean_pixel_kl(
    model: nn.Module, reference: nn.Module, images: Tensor, *, batch_size: int | None = None
) -> float:
    """Mean over pixels of KL(reference ‖ model), the divergence of the two softmax outputs, in nats.

    Both models run side by side, batch by batch, since nobody keeps the pixels of a split.

    Raises
    ------
    Unmeasurable
        If there is no slice, or logits are not numbers.
    """
    total, pixels = 0.0, 0
    with evaluating(reference):
        for rows, logits in batches(model, images, batch_size):
            with torch.no_grad():
                ours = torch.log_softmax(logits.double(), dim=1)
                theirs = torch.log_softmax(reference(images[rows]).double(), dim=1)
            if ours.isnan().any() or theirs.isnan().any():
                raise Unmeasurable("the model's outputs are not finite")
            probability = theirs.exp()
            # A class that the reference rules out adds nothing (0 · log 0 = 0), whatever the model says of it.
            terms = torch.where(probability > 0, probability * (theirs - ours), 0.0)
            total += float(terms.sum())
            pixels += ours[:, 0].numel()
    if not pixels:
        raise Unmeasurable("there are no examples")
    return total / pixels


def _reduced(logits: Tensor, truth: Tensor, spacing: npt.NDArray[np.floating] | None) -> _Columns:
    """Return a batch's columns, in the order of the fields of ``SegmentationOutputs``."""
    wide = logits.double()
    probability = torch.softmax(wide, dim=1)
    is_true = _by_class(truth, logits.shape[1])
    # The indices of max are those of argmax, found on a CPU ten times sooner.
    is_predicted = _by_class(logits.max(dim=1).indices, logits.shape[1])
    # One slice at a time: what clients minimise is the mean over the slices of a batch.
    loss = torch.stack([dice_cross_entropy(wide[i : i + 1], truth[i : i + 1]) for i in range(len(wide))])
    distance = None
    if spacing is not None:
        distance = hausdorff.distances(is_predicted[:, FOREGROUND], is_true[:, FOREGROUND], spacing)
    return (
        (is_predicted & is_true).sum(dim=(2, 3)).cpu().numpy(),
        is_predicted.sum(dim=(2, 3)).cpu().numpy(),
        is_true.sum(dim=(2, 3)).cpu().numpy(),
        loss.cpu().numpy(),
        torch.where(is_true, probability, 0.0).sum(dim=1).mean(dim=(1, 2)).cpu().numpy(),
        torch.where(is_true, 0.0, probability).sum(dim=1).mean(dim=(1, 2)).cpu().numpy(),
        distance,
    )


def _by_class(classes: Tensor, num_classes: int) -> Tensor:
    """Return for each class the pixels that have it, bool, (n, num_classes, height, width)."""
    return torch.stack([classes == number for number in range(num_classes)], dim=1)
