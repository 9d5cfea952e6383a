"""Architectures by name.

An architecture is a function in a file of its own and one line in `MODELS`. It takes what the data dictate
(`num_classes`, `in_channels`, `image_size`) and, by their names, the fields of ``ModelConfig`` that it reads.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

from fedunlearn import registry
from fedunlearn.models.initialise import initialise
from fedunlearn.models.mlp import mlp
from fedunlearn.models.resnet import resnet18
from fedunlearn.models.small_cnn import small_cnn
from fedunlearn.randomness import torch_generator

if TYPE_CHECKING:
    from fedunlearn.config import ModelConfig

__all__ = ["MODELS", "build"]

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "small-cnn": small_cnn,
    "resnet18": resnet18,
}


def build(
    config: "ModelConfig", *, num_classes: int, in_channels: int, image_size: int, seed: int
) -> nn.Module:
    """Build a model whose initial weights depend on `seed` alone.

    Parameters
    ----------
    config : ModelConfig
        The ``[model]`` part of an experiment.
    num_classes, in_channels, image_size : int
        Logits per image, colour channels, height and width in pixels.
    seed : int
        The training seed; weights are drawn under the purpose ``weights``. The global generator is neither
        read nor moved.

    Returns
    -------
    nn.Module
        On the processor, float32, in training mode; maps (n, in_channels, image_size, image_size) to logits
        (n, num_classes).
    """
    with torch.device("meta"):
        model = registry.call(
            MODELS,
            config.name,
            key="model.name",
            config=config,
            num_classes=num_classes,
            in_channels=in_channels,
            image_size=image_size,
        )
    model = model.float().to_empty(device="cpu")
    initialise(model, torch_generator(seed, "weights"))
    return model
