"""What a metric may look at: one model, what it was to forget, and the model retrained without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from fedunlearn.evaluation.scored import Integers, Scored, Unmeasurable

if TYPE_CHECKING:
    from torch import Tensor

    from fedunlearn.evaluation.outputs import ModelOutputs

Found = TypeVar("Found")


@dataclass(frozen=True, eq=False)
class Retrained:
    """The model retrained without the forgotten data.

    Attributes
    ----------
    outputs : ModelOutputs
        On the same data as the measured model's.
    weights : Tensor, shape (parameters,)
    values : mapping of str to float or None, or None
        Its metrics by name; None: it is the measured model itself.
    """

    outputs: ModelOutputs
    weights: Tensor
    values: Mapping[str, float | None] | None = None


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that is known of one model at one moment. What is derived from it is derived once.

    Attributes
    ----------
    outputs : ModelOutputs
        From ``outputs.collect``; a split may be missing.
    forget, retain : int arrays
        Rows of the training split; they share no example. Together they need not cover it.
    seed : int
        The experiment's. Draws depend on it and on the data, never on the model, so that two models of one seed are
        compared on the same examples.
    mia_samples : int
        At most this many members, and as many non-members, train an attack.
    forget_test : int array or None
        Of segmentation: the test slices that are from the sites to forget; None where nobody knows.
    weights : Tensor, shape (parameters,), or None
        The model's flat weights.
    retrained : Retrained or None
    pixel_kl : callable or None
        Of segmentation: runs this model and the retrained one again and returns the mean KL over the pixels of the
        test split, as ``segmentation.mean_pixel_kl`` does, for no outputs keep them.

    Raises
    ------
    ValueError
        If an example is both to forget and to retain.
    """

    outputs: ModelOutputs
    forget: Integers
    retain: Integers
    seed: int
    mia_samples: int = 10_000
    forget_test: Integers | None = None
    weights: Tensor | None = None
    retrained: Retrained | None = None
    pixel_kl: Callable[[], float] | None = None
    _found: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if np.intersect1d(self.forget, self.retain).size:
            raise ValueError("an example is both to be forgotten and retained")

    @property
    def task(self) -> str:
        """What the model does: "classification" or "segmentation"."""
        return self.outputs.task

    @cached_property
    def forgotten(self) -> Scored:
        """Outputs on the training data to forget."""
        return self.training.take(self.forget)

    @cached_property
    def retained(self) -> Scored:
        """Outputs on the training data to keep."""
        return self.training.take(self.retain)

    @property
    def training(self) -> Scored:
        """Outputs on the whole training split."""
        return present(self.outputs.train, "training")

    @property
    def validation(self) -> Scored:
        """Outputs on the validation split."""
        return present(self.outputs.validation, "validation")

    @property
    def test(self) -> Scored:
        """Outputs on the test split."""
        return present(self.outputs.test, "test")

    def once(self, key: str, compute: Callable[[], Found]) -> Found:
        """Return what ``compute`` returns, computed the first time that anybody asks for the key."""
        if key not in self._found:
            self._found[key] = compute()
        return cast("Found", self._found[key])

    def lacks(self, need: str) -> str | None:
        """Return why a metric's need is not met, None where it is."""
        if need == "population":
            return "there is no population of retrained models"
        if need == "retrained" and self.retrained is None:
            return "there is no retrained model to compare with"
        if need == "weights" and self.weights is None:
            return "the model's weights are not kept"
        return None


def present(split: Scored | None, name: str) -> Scored:
    """Return outputs on a split. Raises ``Unmeasurable`` where there are none."""
    if split is None:
        raise Unmeasurable(f"there is no {name} data")
    return split
