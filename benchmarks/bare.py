"""What there is to do, done with nothing around it: the rows that all others are divided by.

The bare loop is what one writes for this one purpose: a resident ``nn.Module`` and ``torch.optim.SGD``, per-tensor
copies of the global weights, the same tensors, batches in the same order, FedAvg by per-tensor sums. It
reports no losses, checks nothing, and leaves BatchNorm's statistics wherever the clients left them. Seeds of the
shuffles are computed beforehand, outside the clock.

Where nobody trains, what there is to do is to copy the model once per client.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fedunlearn import models
from fedunlearn.config import Experiment
from fedunlearn.data import FederatedData
from fedunlearn.randomness import derive_seed
from fedunlearn.training import learning_rate


class BareLoop:
    """Federated averaging without a framework: one model, a loop over clients, per-tensor arithmetic.

    Parameters
    ----------
    threads
        PyTorch's intra-op threads.
    """

    serialised: int | None = 0
    note = ""

    def __init__(self, experiment: Experiment, data: FederatedData, seed: int, threads: int = 1) -> None:
        self.threads = threads
        self.settings = experiment.train
        self.clients = [data.client(k) for k in range(experiment.federation.num_clients)]
        self.module = models.build(
            experiment.model,
            num_classes=data.num_classes,
            in_channels=data.in_channels,
            image_size=data.image_size,
            seed=seed,
        ).train()
        self.parameters = list(self.module.parameters())
        self.weights: Sequence[Tensor] = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.SGD(
            self.parameters, lr=self.settings.lr, weight_decay=self.settings.weight_decay
        )
        self.generator = torch.Generator()
        self.seed = seed

    def prepare(self, number: int, start: Tensor) -> None:
        """Set learning rate, shuffles and weights of a round."""
        self.seeds = [derive_seed(self.seed, "batches", number, k) for k in range(len(self.clients))]
        self.optimizer.param_groups[0]["lr"] = learning_rate(self.settings, number)
        pieces = torch.split(start, [w.numel() for w in self.weights])
        self.weights = [piece.view_as(w) for piece, w in zip(pieces, self.weights, strict=True)]

    def run(self) -> None:
        """Train every client from the global weights and average what they end in, by number of examples."""
        sums = [torch.zeros_like(w) for w in self.weights]
        num_examples = 0
        for (images, labels), seed in zip(self.clients, self.seeds, strict=True):
            with torch.no_grad():
                for p, w in zip(self.parameters, self.weights, strict=True):
                    p.copy_(w)
            order = torch.randperm(len(labels), generator=self.generator.manual_seed(seed))
            for start in range(0, len(labels), self.settings.batch_size):
                batch = order[start : start + self.settings.batch_size]
                self.optimizer.zero_grad()
                loss = F.cross_entropy(self.module(images[batch]), labels[batch])
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
            with torch.no_grad():
                for total, p in zip(sums, self.parameters, strict=True):
                    total.add_(p, alpha=len(labels))
            num_examples += len(labels)
        self.weights = [total.div_(num_examples) for total in sums]

    def vector(self) -> Tensor:
        """Return the global weights, flat."""
        return torch.cat([w.reshape(-1) for w in self.weights])

    def close(self) -> None:
        """Nothing to do."""


class Memcpy:
    """Copy a model once per client, from and to memory that is there already."""

    serialised: int | None = 0
    note = ""

    def __init__(self, num_floats: int, num_clients: int, threads: int = 1) -> None:
        self.threads = threads
        self.num_clients = num_clients
        self.weights = torch.ones(num_floats)
        self.copy = torch.empty_like(self.weights)

    def prepare(self, number: int, start: Tensor) -> None:
        """Copy from these weights."""
        self.weights = start

    def run(self) -> None:
        """Copy the weights once per client."""
        for _ in range(self.num_clients):
            self.copy.copy_(self.weights)

    def vector(self) -> Tensor:
        """Return the weights, which nobody has trained."""
        return self.weights

    def close(self) -> None:
        """Nothing to do."""
