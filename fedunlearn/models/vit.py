"""A vision transformer for small images."""

from dataclasses import dataclass
from typing import Annotated

from torch import nn

from fedunlearn.config.conditions import Count, at_least, at_most
from fedunlearn.config.settings import ModelSettings
from fedunlearn.errors import ConfigError

MLP_RATIO = 4


@dataclass(frozen=True)
class ViTSettings(ModelSettings):
    """Size of the patches, and of the transformer."""

    patch_size: Count = 4  # pixels; image height and width are a multiple
    width: Count = 192  # numbers per token
    depth: Annotated[int, at_least(1), at_most(1000)] = 6  # blocks
    heads: Count = 3  # of attention; width is a multiple


def vit(num_classes: int, in_channels: int, image_size: int, settings: ViTSettings) -> nn.Module:
    """Vision transformer on patches of model.patch-size pixels, of a width, depth and number of heads to choose.

    Input (n, in_channels, image_size, image_size), output logits (n, num_classes), read off a class token. The
    hidden layer of a block has 4 · `width` units. No dropout: nothing is drawn in training.

    Source: Dosovitskiy et al. 2020 (arXiv 2010.11929), torchvision's implementation. Deviation: initial weights
    are those of :mod:`fedunlearn.models.initialise`; torchvision's start with a head of zeros.

    Raises
    ------
    ConfigError
        The patches do not tile the image, or the heads do not share out the width.
    """
    patch_size, width, heads = settings.patch_size, settings.width, settings.heads
    if image_size % patch_size:
        raise ConfigError(
            f"model.patch-size = {patch_size}: must divide the height and width of the images, {image_size} pixels"
        )
    if width % heads:
        raise ConfigError(f"model.heads = {heads}: must divide model.width = {width}")

    from torchvision.models import VisionTransformer  # lazily: slow to import, and only needed here

    model: nn.Module = VisionTransformer(
        image_size=image_size,
        patch_size=patch_size,
        num_layers=settings.depth,
        num_heads=heads,
        hidden_dim=width,
        mlp_dim=MLP_RATIO * width,
        num_classes=num_classes,
    )
    if in_channels != 3:  # torchvision's takes no other number
        model.conv_proj = nn.Conv2d(in_channels, width, kernel_size=patch_size, stride=patch_size)
    return model
