"""Small stacks, and the same models trained one by one."""

import torch

from fedunlearn import models
from fedunlearn.config import ModelConfig, TrainConfig
from fedunlearn.models.flat import FlatModel
from fedunlearn.training import CLASSIFY, train_local

CLASSES = 4
OPTIMIZERS = {
    "sgd": {"optimizer": "sgd"},
    "sgd, weight decay": {"optimizer": "sgd", "weight_decay": 1e-2},
    "sgd, momentum": {"optimizer": "sgd", "momentum": 0.9},
    "sgd, both": {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 1e-2},
    "adam": {"optimizer": "adam"},
    "adam, weight decay": {"optimizer": "adam", "weight_decay": 1e-2},
    "adamw": {"optimizer": "adamw"},
    "adamw, weight decay": {"optimizer": "adamw", "weight_decay": 1e-1},
}


def train_config(**changes):
    return TrainConfig(**{"rounds": 1, "lr": 0.1, "batch_size": 8, **changes})


def generator(seed):
    return torch.Generator().manual_seed(seed)


def generators(count):
    return [generator(100 + k) for k in range(count)]


def network(name="small-cnn", *, seed=0, dtype=torch.float32, size=8, channels=1, classes=CLASSES, **shape):
    """Return a flat model; ``seed`` decides its weights."""
    module = models.build(
        ModelConfig.of(name=name, **shape),
        num_classes=classes,
        in_channels=channels,
        image_size=size,
        seed=seed,
    )
    return FlatModel(module, dtype=dtype)


def clients(counts, *, dtype=torch.float32, size=8, channels=1, seed=1):
    """Return the images and labels of clients with so many rows each, nothing of them in common."""
    draw = generator(seed)
    images = [
        torch.randn(n, channels, size, size, generator=draw, dtype=torch.float64).to(dtype) for n in counts
    ]
    return images, [torch.randint(CLASSES, (n,), generator=draw) for n in counts]


def one_by_one(model, start, images, labels, config, *, lr, recipe=CLASSIFY):
    """Train each with ``train_local`` and return the weights, a row each, and the losses."""
    vectors, losses = [], []
    for k, draw in enumerate(generators(len(images))):
        model.load(start if start.dim() == 1 else start[k])
        result = train_local(model, images[k], labels[k], config, lr=lr, generator=draw, recipe=recipe)
        losses.append(result.loss)
        vectors.append(model.vector.clone())
    return torch.stack(vectors), losses
