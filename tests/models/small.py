"""Every architecture in a small version, and images for it."""

from importlib.util import find_spec

import pytest
import torch

from fedunlearn import plugins
from fedunlearn.config import ModelConfig
from fedunlearn.models import build

SIZE = 16
CLASSES = 5
SETTINGS = {
    "vit": {"width": 24, "depth": 2, "heads": 3},
    # Below 64 pixels its last stage has a single one, and attention nothing to choose between.
    "mit-b0": {"input_size": 64},
    "unet": {"base_features": 4, "levels": 3},
    "unet, instance norm": {"base_features": 4, "levels": 3, "norm": "instance"},
    "unet, no residual units": {"base_features": 4, "levels": 3, "residual_units": 0},
}
needs_transformers = pytest.mark.skipif(
    find_spec("transformers") is None, reason='needs transformers, of the extra "vit"'
)
VARIANTS = [
    pytest.param(name, marks=needs_transformers if name == "mit-b0" else ())
    for name in sorted({*plugins.names("models"), *SETTINGS})
]


def make(variant, *, seed=1, num_classes=CLASSES, in_channels=3, image_size=SIZE, **settings):
    """Build a variant, with further settings of ``ModelConfig``."""
    config = ModelConfig.of(name=variant.partition(",")[0], **SETTINGS.get(variant, {}) | settings)
    return build(config, num_classes=num_classes, in_channels=in_channels, image_size=image_size, seed=seed)


def batch(variant, rows=6, dtype=torch.float32):
    """Return images and what is to be said of them: a class of each, or of every pixel."""
    draw = torch.Generator().manual_seed(3)
    images = torch.randn(rows, 3, SIZE, SIZE, generator=draw, dtype=torch.float64).to(dtype)
    shape = (rows, SIZE, SIZE) if variant.startswith("unet") else (rows,)
    return images, torch.randint(CLASSES, shape, generator=draw)


def parameters(model):
    """Return how many numbers there are to learn."""
    return sum(parameter.numel() for parameter in model.parameters())
