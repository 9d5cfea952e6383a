"""One pass of a model over the data. Every measure reads what is kept here; none runs the model again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedunlearn.evaluation.forward import batches
from fedunlearn.evaluation.forward import evaluation_batch as evaluation_batch
from fedunlearn.evaluation.scored import Unmeasurable
from fedunlearn.evaluation.segmentation import SegmentationOutputs, segment

SPLITS = ("train", "validation", "test")


class Spaced(Protocol):
    """The part of ``fedunlearn.data.SliceIndex`` that an evaluation reads."""

    @property
    def spacing(self) -> npt.NDArray[np.float32]: ...


class Splits(Protocol):
    """The part of ``fedunlearn.data.FederatedData`` that an evaluation reads."""

    @property
    def task(self) -> str: ...
    @property
    def slices(self) -> Mapping[str, Spaced] | None: ...
    @property
    def train_images(self) -> Tensor: ...
    @property
    def train_labels(self) -> Tensor: ...
    @property
    def validation_images(self) -> Tensor: ...
    @property
    def validation_labels(self) -> Tensor: ...
    @property
    def test_images(self) -> Tensor: ...
    @property
    def test_labels(self) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class SplitOutputs:
    """A classifier's outputs on one split, in the split's order; moved to the CPU and off the autograd graph.

    Attributes
    ----------
    logits : Tensor, shape (n, classes)
    labels : Tensor of int64, shape (n,)

    The derived arrays are float64 NumPy arrays, computed once. They raise ``Unmeasurable`` where the
    logits are not numbers: a model that has diverged has no accuracy.
    """

    logits: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.logits.ndim != 2 or self.labels.shape != self.logits.shape[:1]:
            raise ValueError(
                f"logits {tuple(self.logits.shape)} and labels {tuple(self.labels.shape)}: "
                "must be (n, classes) and (n,)"
            )
        object.__setattr__(self, "logits", self.logits.detach().cpu())
        object.__setattr__(self, "labels", self.labels.cpu())

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: npt.ArrayLike) -> "SplitOutputs":
        """Return the outputs of these examples only, in the order given."""
        chosen = torch.from_numpy(np.asarray(indices, dtype=np.int64))
        return SplitOutputs(self.logits[chosen], self.labels[chosen])

    @property
    def num_classes(self) -> int:
        return self.logits.shape[1]

    @cached_property
    def label_array(self) -> npt.NDArray[np.int64]:
        """The labels, shape (n,)."""
        return np.asarray(self.labels.numpy(), dtype=np.int64)

    @cached_property
    def log_probabilities(self) -> npt.NDArray[np.float64]:
        """Natural log of the softmax, shape (n, classes)."""
        values: npt.NDArray[np.float64] = torch.log_softmax(self.logits.double(), dim=1).numpy()
        if np.isnan(values).any():
            raise Unmeasurable("the model's outputs are not finite")
        return values

    @cached_property
    def losses(self) -> npt.NDArray[np.float64]:
        """Cross-entropy of each example in nats, shape (n,)."""
        return -self.log_probabilities[np.arange(len(self)), self.label_array]

    @cached_property
    def confidences(self) -> npt.NDArray[np.float64]:
        """Softmax probability of each example's true class, shape (n,)."""
        return np.exp(-self.losses)

    @cached_property
    def margins(self) -> npt.NDArray[np.float64]:
        """True class's logit − logsumexp of the others = log(p / (1 − p)), p its probability; shape (n,).

        Ranks examples as p does, and goes on doing so where p has been rounded to 1.
        """
        _ = self.log_probabilities  # refuses outputs that are not finite
        logits = self.logits.double()
        others = logits.scatter(1, self.labels[:, None], -torch.inf).logsumexp(dim=1)
        values: npt.NDArray[np.float64] = (logits.gather(1, self.labels[:, None])[:, 0] - others).numpy()
        return values

    @cached_property
    def qualities(self) -> npt.NDArray[np.float64]:
        """100 where the largest logit is the true class's, else 0, shape (n,)."""
        return np.where(self.correct, 100.0, 0.0)

    def class_qualities(self) -> list[npt.NDArray[np.float64]]:
        """Return the qualities of the examples of each class."""
        return [self.qualities[self.label_array == label] for label in range(self.num_classes)]

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether the largest logit is the true class's, shape (n,). Of equal logits the first counts."""
        correct: npt.NDArray[np.bool_] = self.log_probabilities.argmax(axis=1) == self.label_array
        return correct


@dataclass(frozen=True, eq=False)
class ModelOutputs:
    """A model's outputs on the splits that were asked for; None for one that was not, or that is empty.

    ``task`` says which kind they are of: "classification" or "segmentation".
    """

    train: SplitOutputs | SegmentationOutputs | None
    validation: SplitOutputs | SegmentationOutputs | None
    test: SplitOutputs | SegmentationOutputs | None
    task: str = "classification"


def collect(
    model: nn.Module,
    data: Splits,
    *,
    splits: Sequence[str] = SPLITS,
    batch_size: int | None = None,
    distances: Sequence[str] = (),
) -> ModelOutputs:
    """Run the model once over the splits, without augmentation, in evaluation mode and without gradients.

    Parameters
    ----------
    model : nn.Module
        On the same device as the data and of the same dtype.
    data : Splits
        Anything with ``task``, ``<split>_images`` (n, channels, height, width) and ``<split>_labels``: (n,),
        or masks (n, height, width) where the task is segmentation.
    splits : sequence of str
        Some of "train", "validation", "test".
    batch_size : int, optional
        Examples per forward pass. Part of the numerics: another size may change the last bits. Default: by
        ``evaluation_batch``.
    distances : sequence of str
        Of segmentation: the splits on which Hausdorff distances are measured, which takes a while. Not where
        the data have no ``slices``.
    """
    unknown = {*splits, *distances} - set(SPLITS)
    if unknown:
        raise ValueError(f"splits = {sorted(unknown)}: must be among {list(SPLITS)}")
    sides: dict[str, tuple[Tensor, Tensor]] = {
        "train": (data.train_images, data.train_labels),
        "validation": (data.validation_images, data.validation_labels),
        "test": (data.test_images, data.test_labels),
    }

    def on(name: str) -> SplitOutputs | SegmentationOutputs:
        images, labels = sides[name]
        if data.task != "segmentation":
            return SplitOutputs(predict(model, images, batch_size=batch_size), labels)
        spacing = data.slices[name].spacing if data.slices is not None and name in distances else None
        return segment(model, images, labels, spacing=spacing, batch_size=batch_size)

    asked = {name for name in splits if len(sides[name][1])}
    return ModelOutputs(**{name: on(name) if name in asked else None for name in SPLITS}, task=data.task)


def predict(model: nn.Module, images: Tensor, *, batch_size: int | None = None) -> Tensor:
    """Return the model's logits, shape (n, classes), on the processor, in evaluation mode and without gradients.

    Each module's training flag is put back afterwards, also when the model raises.
    """
    return torch.cat([logits.cpu() for _, logits in batches(model, images, batch_size)])
