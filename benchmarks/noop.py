"""A client that does nothing, for what an exchange of models costs by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fedunlearn.federation.answers import Config
from fedunlearn.models.flat import FlatModel
from fedunlearn.training import LocalResult


class Noop:
    """A worker's resident model of one tensor, left as it is: a ClientRoutine."""

    def __init__(self, num_floats: int) -> None:
        module = nn.Module()
        module.weights = nn.Parameter(torch.ones(num_floats))
        self._model = FlatModel(module)

    @property
    def model(self) -> FlatModel:
        """The resident model."""
        return self._model

    def train(self, client: int, kind: str, config: Config, tensors: Mapping[str, Tensor]) -> LocalResult:
        """Report one example, and no change."""
        return LocalResult(1, 0.0)

    def train_stack(self, clients: Sequence[int], start: Tensor, config: Config) -> None:
        """Refuse: there is nothing to stack."""
        raise NotImplementedError("a no-op is not stacked")
