"""Four tiny made-up hospitals, put together by hand: segmentation without a reader or a file."""

from functools import partial

import numpy as np
import torch

from fedunlearn import config, models, workspace
from fedunlearn.clients.segmentation import Segmentation
from fedunlearn.data import FederatedData
from fedunlearn.data.partition import Partition
from fedunlearn.models.flat import FlatModel
from fedunlearn.randomness import torch_generator

SIZE = 16  # pixels
SLICES = (9, 5, 11, 4)  # of each client: whole batches and rests, one one fewer than a batch
NUM_CLIENTS = len(SLICES)

TEXT = """
name = "sites"
targets = [[1]]
[data]
source = "prostate-mri"
directory = "nowhere"
partition = "site"
resize = 16
[federation]
num-clients = 4
[model]
name = "unet"
base-features = 2
levels = 2
[train]
rounds = 2
batch-size = 4
optimizer = "adam"
lr = 1e-2
weight-decay = 1e-4
[[method]]
name = "puf"
[recover]
max-rounds = 2
"""


def experiment(*overrides):
    """Return an experiment on these hospitals."""
    return config.loads(TEXT, overrides=overrides)


def slices(n, purpose, *, contrast=1.0, dtype=torch.float32):
    """Return images (n, 3, SIZE, SIZE) and masks (n, SIZE, SIZE) of a bright disc in noise."""
    draw = torch_generator(0, f"sites {purpose}")
    centre = SIZE / 2 + 4 * torch.rand(n, 2, 1, 1, generator=draw) - 2
    radius = 2 + 3 * torch.rand(n, 1, 1, generator=draw)
    row, column = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    masks = (row - centre[:, 0]) ** 2 + (column - centre[:, 1]) ** 2 < radius**2
    noise = torch.randn(n, 3, SIZE, SIZE, generator=draw)
    return (contrast * masks.unsqueeze(1) + 0.3 * noise).to(dtype), masks.to(torch.uint8)


def data(dtype=torch.float32):
    """Return the federation's data: every site has a contrast of its own."""
    held = [slices(n, k, contrast=1 + k / 2, dtype=dtype) for k, n in enumerate(SLICES)]
    owners = np.repeat(np.arange(NUM_CLIENTS), SLICES)
    return FederatedData(
        torch.cat([images for images, _ in held]),
        torch.cat([masks for _, masks in held]),
        *slices(6, "validation", dtype=dtype),
        *slices(7, "test", dtype=dtype),
        clients=Partition.of_owners(owners, NUM_CLIENTS),
        source_rows=np.arange(len(owners)),
        class_names=("background", "prostate"),
        task="segmentation",
        client_names=("north", "east", "south", "west"),
    )


def new_module(asked, seed=5):
    """Return an experiment's network with fresh weights."""
    return models.build(asked.model, num_classes=2, in_channels=3, image_size=SIZE, seed=seed)


def workplace(*overrides):
    """Return a workplace of one's own, with a fresh model."""
    asked = experiment(*overrides)
    dtype = workspace.dtype_of(asked)
    return workspace.Workplace(asked, data(dtype), FlatModel(new_module(asked), dtype=dtype))


def routine(*overrides):
    """Return a worker's routine; for workers elsewhere, :func:`maker`."""
    return Segmentation(workplace(*overrides))


def maker(*overrides):
    """Return what makes a worker's routine, wherever the worker is: it can be sent."""
    return partial(routine, *overrides)
