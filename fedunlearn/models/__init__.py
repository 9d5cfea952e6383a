"""Architectures by name.

An architecture is a function in a file of its own and one line in :mod:`fedunlearn.plugins`. It takes what the data
dictate (`num_classes`, `in_channels`, `image_size`) and its own `settings`.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fedunlearn import plugins
from fedunlearn.errors import ConfigError
from fedunlearn.models.initialise import initialise
from fedunlearn.models.weights_file import WeightsFile
from fedunlearn.randomness import torch_generator

if TYPE_CHECKING:
    from fedunlearn.config import ModelConfig

__all__ = ["build", "origin_of"]


def build(
    config: "ModelConfig", *, num_classes: int, in_channels: int, image_size: int, seed: int
) -> nn.Module:
    """Build a model whose initial weights depend on `seed` alone, and on the file in its setting ``weights``.

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
        The architecture cannot be built for such images, what it needs is not installed, or ``model.weights`` is
        no file for it.
    """
    file = _weights_file(config)
    with torch.device("meta"):
        made: Any = plugins.call(
            "models",
            config.name,
            settings=config.settings,
            num_classes=num_classes,
            in_channels=in_channels,
            image_size=image_size,
        )
    if not isinstance(made, nn.Module):
        given = type(made).__name__
        raise ConfigError(
            f'model.name = "{config.name}": returned a {given}, but must return a torch.nn.Module'
        )
    model = made.float().to_empty(device="cpu")
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
    return f"{config.name}: random weights" if config.settings.naming is not None else ""


def _weights_file(config: "ModelConfig") -> WeightsFile | None:
    path = getattr(config.settings, "weights", None)
    return None if path is None else WeightsFile(path, config.settings.naming)
