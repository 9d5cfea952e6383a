"""Architectures by name.

An architecture is a function in a file of its own and one line in `MODELS`. It takes what the data dictate
(`num_classes`, `in_channels`, `image_size`) and, by their names, the fields of ``ModelConfig`` that it reads.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

from fedunlearn import plugins
from fedunlearn.errors import ConfigError
from fedunlearn.models.initialise import initialise
from fedunlearn.models.mit import NAMING as MIT_NAMING
from fedunlearn.models.mit import mit_b0
from fedunlearn.models.mlp import mlp
from fedunlearn.models.resnet import resnet18
from fedunlearn.models.small_cnn import small_cnn
from fedunlearn.models.unet import unet
from fedunlearn.models.vit import vit
from fedunlearn.models.weights_file import WeightsFile
from fedunlearn.randomness import torch_generator

if TYPE_CHECKING:
    from fedunlearn.config import ModelConfig

__all__ = ["MODELS", "build", "origin_of"]

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "small-cnn": small_cnn,
    "resnet18": resnet18,
    "vit": vit,
    "mit-b0": mit_b0,
    "unet": unet,
}
NAMINGS = {"mit-b0": MIT_NAMING}
"""Architectures that can start from a file of weights, and the names in it."""


def build(
    config: "ModelConfig", *, num_classes: int, in_channels: int, image_size: int, seed: int
) -> nn.Module:
    """Build a model whose initial weights depend on `seed` alone, and on the file in ``config.weights``.

    Parameters
    ----------
    config : ModelConfig
        The ``[model]`` part of an experiment.
    num_classes, in_channels, image_size : int
        Classes, colour channels, height and width of an image in pixels.
    seed : int
        The training seed; weights are drawn under the purpose ``weights``. The global generator is neither
        read nor moved.

    Returns
    -------
    nn.Module
        On the processor, float32, in training mode; maps (n, in_channels, image_size, image_size) to logits
        (n, num_classes), or per pixel (n, num_classes, image_size, image_size).

    Raises
    ------
    ConfigError
        The architecture cannot be built for such images, what it needs is not installed, or ``config.weights`` is
        no file for it.
    """
    file = _weights_file(config)
    with torch.device("meta"):
        model: nn.Module = plugins.call(
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
    if file is not None:
        file.load_into(model, num_classes)
    return model


def origin_of(config: "ModelConfig", num_classes: int) -> str:
    """Say where the initial weights are from, or return an empty string if they could only be random.

    Such as "mit-b0: random weights", or "mit-b0: weights of FILE (sha256 …); head random".
    """
    file = _weights_file(config)
    if file is not None:
        return f"{config.name}: {file.origin(num_classes)}"
    return f"{config.name}: random weights" if config.name in NAMINGS else ""


def _weights_file(config: "ModelConfig") -> WeightsFile | None:
    if config.weights is None:
        return None
    if config.name not in NAMINGS:
        raise ConfigError(
            f'model.weights = "{config.weights}": must be left out with model.name = "{config.name}"; '
            f"it belongs to {', '.join(NAMINGS)}"
        )
    return WeightsFile(config.weights, NAMINGS[config.name])
