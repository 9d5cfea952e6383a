"""Outputs on masks, made to measure. Images are logits themselves, so that the identity is a model."""

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

from fedunlearn.data.slice_index import SliceIndex
from fedunlearn.evaluation.segmentation import segment

SAYS_ITS_IMAGE = nn.Identity()


def certain(masks, margin=4.0, num_classes=2):
    """Logits (n, classes, h, w) that are ``margin`` larger for these masks' classes than for others."""
    masks = torch.as_tensor(masks)
    return margin * torch.stack([(masks == label).double() for label in range(num_classes)], dim=1)


def outputs(logits, masks, **options):
    """What is kept of a model that gives these logits."""
    return segment(SAYS_ITS_IMAGE, torch.as_tensor(logits), torch.as_tensor(masks), **options)


@st.composite
def slices(draw, most=4, side=5, num_classes=2):
    """Random (logits, masks): coarse logits, so that ties come up, and masks that are often empty or full."""
    n, height, width = draw(st.integers(1, most)), draw(st.integers(2, side)), draw(st.integers(2, side))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = generator.choice([-3.0, -0.5, 0.0, 0.5, 2.0], size=(n, num_classes, height, width))
    masks = (generator.random((n, height, width)) < generator.choice([0, 0.3, 0.7, 1], size=(n, 1, 1))) * (
        num_classes - 1
    )
    return torch.from_numpy(logits), torch.from_numpy(masks.astype(np.uint8))


def blobs(n, size, seed):
    """n noisy images (3 channels) of a bright rectangle each, and its mask."""
    draw = torch.Generator().manual_seed(seed)
    masks = torch.zeros(n, size, size, dtype=torch.uint8)
    for mask in masks:
        top, left = torch.randint(1, size // 2, (2,), generator=draw).tolist()
        height, width = torch.randint(2, size // 2, (2,), generator=draw).tolist()
        mask[top : top + height, left : left + width] = 1
    images = masks[:, None] + 0.8 * torch.randn(n, 3, size, size, generator=draw)
    return images, masks


@dataclass
class Scans:
    """What an evaluation reads of segmentation data: 3 sites with 6, 4 and 8 training slices."""

    train_images: torch.Tensor
    train_labels: torch.Tensor
    validation_images: torch.Tensor
    validation_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    slices: dict[str, SliceIndex] | None
    task: str = "segmentation"


SIZES = {"train": (6, 4, 8), "validation": (2, 1, 2), "test": (3, 2, 3)}


def index(sizes, seed):
    """Where slices are from: a case per slice, and a pixel size of their own."""
    site = np.repeat(np.arange(len(sizes)), sizes)
    numbers = np.arange(len(site), dtype=np.int64)
    spacing = np.random.default_rng(seed).uniform(0.4, 1.2, size=(len(site), 2)).astype(np.float32)
    return SliceIndex(site.astype(np.int64), numbers, numbers, spacing)


def scans(size=12, dtype=torch.float32):
    parts, slices = [], {}
    for seed, (split, sizes) in enumerate(SIZES.items(), 1):
        images, masks = blobs(sum(sizes), size, seed)
        parts += [images.to(dtype), masks]
        slices[split] = index(sizes, seed)
    return Scans(*parts, slices)


def small_net(seed=3):
    """A little convolutional network with BatchNorm: two classes of pixels."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1)
        )
    net[1].running_mean.add_(0.1)
    return net
