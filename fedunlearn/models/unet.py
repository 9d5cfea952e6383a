"""A U-Net that says of every pixel what it belongs to."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import nn

from fedunlearn.config.conditions import Count, at_least, at_most
from fedunlearn.config.settings import ModelSettings
from fedunlearn.errors import ConfigError

NORMS = {"batch": ("batch", {}), "instance": ("instance", {"affine": True})}


@dataclass(frozen=True)
class UNetSettings(ModelSettings):
    """Width, depth and normalisation."""

    tasks: ClassVar[tuple[str, ...]] = ("segmentation",)
    base_features: Count = 32  # channels of the first level, doubled at each
    levels: Annotated[int, at_least(2), at_most(16)] = 4
    residual_units: Annotated[int, at_least(0), at_most(64)] = 2  # convolutions per level, a residual beside
    norm: Literal["batch", "instance"] = "batch"


def unet(num_classes: int, in_channels: int, image_size: int, settings: UNetSettings) -> nn.Module:
    """U-Net for masks: model.levels levels, twice the channels and half the resolution from one to the next.

    Input (n, in_channels, image_size, image_size), output logits (n, num_classes, image_size, image_size). A level
    has model.residual-units convolutions with a residual connection around them on the way down, and one after the
    transposed convolution on the way up; with 0, a single convolution each way.

    Source: Ronneberger et al. 2015 (arXiv 1505.04597) in the variant of Kerfoot et al. 2018
    (doi 10.1007/978-3-030-12029-0_40), MONAI's implementation. Reconstruction: of PUF's U-Net no more is known than
    32 base features, 4 levels and BatchNorm. Chosen here are two convolutions per level, PReLU, and convolutions
    without bias. (A normalisation takes a bias out again, but one that holds statistics only those of its training:
    unlearning negates the bias and not the statistics, and would shift every channel.)

    Raises
    ------
    ConfigError
        The image cannot be halved from level to level down to 2 × 2 pixels.
    """
    levels = settings.levels
    halvings = 2 ** (levels - 1)
    if image_size % halvings or image_size < 2 * halvings:
        raise ConfigError(
            f"model.levels = {levels}: needs images whose height and width are a multiple of {halvings} and at least "
            f"{2 * halvings} pixels, not {image_size}; use fewer levels or another data.resize"
        )

    from monai.networks.nets.unet import UNet  # lazily: slow to import, and only needed here

    model: nn.Module = UNet(
        spatial_dims=2,
        in_channels=in_channels,
        out_channels=num_classes,
        channels=[settings.base_features * 2**level for level in range(levels)],
        strides=[2] * (levels - 1),
        num_res_units=settings.residual_units,
        norm=NORMS[settings.norm],
        bias=False,
    )
    return model
