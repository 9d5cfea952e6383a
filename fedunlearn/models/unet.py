"""A U-Net that says of every pixel what it belongs to."""

from torch import nn

from fedunlearn.errors import ConfigError

NORMS = {"batch": ("batch", {}), "instance": ("instance", {"affine": True})}


def unet(
    num_classes: int,
    in_channels: int,
    image_size: int,
    base_features: int,
    levels: int,
    residual_units: int,
    norm: str,
) -> nn.Module:
    """U-Net for masks: model.levels levels, twice the channels and half the resolution from one to the next.

    Input (n, in_channels, image_size, image_size), output logits (n, num_classes, image_size, image_size). A level
    has `residual_units` convolutions with a residual connection around them on the way down, and one after the
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
    halvings = 2 ** (levels - 1)
    if image_size % halvings or image_size < 2 * halvings:
        raise ConfigError(
            f"model.levels = {levels}: needs images whose height and width are a multiple of {halvings} and at least "
            f"{2 * halvings} pixels, not {image_size}; take fewer levels or another data.resize"
        )

    from monai.networks.nets.unet import UNet  # lazily: slow to import, and only needed here

    model: nn.Module = UNet(
        spatial_dims=2,
        in_channels=in_channels,
        out_channels=num_classes,
        channels=[base_features * 2**level for level in range(levels)],
        strides=[2] * (levels - 1),
        num_res_units=residual_units,
        norm=NORMS[norm],
        bias=False,
    )
    return model
