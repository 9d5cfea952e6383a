"""One pass of a model over the data. Every measure reads what is kept here; none runs the model again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fedunlearn.evaluation.catalogue import Unmeasurable

SPLITS = ("train", "validation", "test")


class Splits(Protocol):
    """The part of ``fedunlearn.data.FederatedData`` that an evaluation reads."""

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
    """A model's outputs on one split, in the split's order; moved to the CPU and off the autograd graph.

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
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether the largest logit is the true class's, shape (n,). Of equal logits the first counts."""
        correct: npt.NDArray[np.bool_] = self.log_probabilities.argmax(axis=1) == self.label_array
        return correct


@dataclass(frozen=True, eq=False)
class ModelOutputs:
    """A model's outputs on the splits that were asked for; None for one that was not, or that is empty."""

    train: SplitOutputs | None
    validation: SplitOutputs | None
    test: SplitOutputs | None


def collect(
    model: nn.Module, data: Splits, *, splits: Sequence[str] = SPLITS, batch_size: int = 500
) -> ModelOutputs:
    """Run the model once over the splits, without augmentation, in evaluation mode and without gradients.

    Parameters
    ----------
    model : nn.Module
        On the same device as the data and of the same dtype.
    data : Splits
        Anything with ``<split>_images`` (n, channels, height, width) and ``<split>_labels`` (n,).
    splits : sequence of str
        Some of "train", "validation", "test".
    batch_size : int
        Examples per forward pass. Part of the numerics: another size may change the last bits.
    """
    unknown = set(splits) - set(SPLITS)
    if unknown:
        raise ValueError(f"splits = {sorted(unknown)}: must be among {list(SPLITS)}")
    sides: dict[str, tuple[Tensor, Tensor]] = {
        "train": (data.train_images, data.train_labels),
        "validation": (data.validation_images, data.validation_labels),
        "test": (data.test_images, data.test_labels),
    }
    return ModelOutputs(
        **{
            name: SplitOutputs(predict(model, images, batch_size=batch_size), labels)
            if name in splits and len(labels)
            else None
            for name, (images, labels) in sides.items()
        }
    )


def predict(model: nn.Module, images: Tensor, *, batch_size: int = 500) -> Tensor:
    """Return the model's logits, shape (n, classes), in evaluation mode and without gradients.

    Each module's training flag is put back afterwards, also when the model raises.
    """
    with _evaluating(model), torch.no_grad():
        return torch.cat([model(images[i : i + batch_size]) for i in range(0, len(images), batch_size)])


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    # Per module, because a model may keep some of its layers (frozen normalisation) in evaluation mode.
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, flag in training.items():
            module.training = flag
