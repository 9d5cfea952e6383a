"""The local task in plain PyTorch, resident in the process that runs clients.

Data, partition, initial weights and order of batches are the experiment's own; the loop around them is the one
that every PyTorch user writes.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn import models, workspace
from fedunlearn.config import Experiment
from fedunlearn.data import FederatedData
from fedunlearn.randomness import torch_generator
from fedunlearn.training import learning_rate


def build(
    experiment: Experiment, num_classes: int, in_channels: int, image_size: int, seed: int
) -> nn.Module:
    """Return the experiment's model with the initial weights that ``seed`` draws."""
    return models.build(
        experiment.model, num_classes=num_classes, in_channels=in_channels, image_size=image_size, seed=seed
    )


@lru_cache(maxsize=1)
def workplace(path: str, seed: int) -> tuple[Experiment, FederatedData, nn.Module]:
    """Return experiment, data and model; a Ray actor makes them for its first client and keeps them."""
    experiment = workspace.experiment_at(path)
    data = workspace.data_of(experiment, seed)
    model = build(experiment, data.num_classes, data.in_channels, data.image_size, seed)
    return experiment, data, model.to(workspace.device_of(experiment)).train()


def train(
    path: str, seed: int, client: int, number: int, weights: dict[str, Tensor]
) -> tuple[dict[str, Tensor], int]:
    """Train one client in a round, counted from 1; return its state dict and number of examples."""
    experiment, data, model = workplace(path, seed)
    settings = experiment.train
    images, labels = data.client(client)
    model.load_state_dict(weights)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=learning_rate(settings, number),
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    generator = torch_generator(seed, "batches", number, client)
    for _ in range(settings.local_epochs):
        order = torch.randperm(len(labels), generator=generator).to(labels.device)
        for batch in order.split(settings.batch_size):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    return model.state_dict(), len(labels)
