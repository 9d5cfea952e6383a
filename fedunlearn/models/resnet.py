"""ResNet-18 as federated unlearning uses it: for small images, and without batch statistics."""

from functools import partial

from torch import nn

GROUPS = 2


def resnet18(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """ResNet-18 for small images: 3 × 3 stem, no max-pool, GroupNorm; 11 173 962 parameters on CIFAR-10.

    Input (n, in_channels, image_size, image_size), output logits (n, num_classes). Stages of 64, 128, 256 and
    512 channels with two basic blocks each, GroupNorm of 2 groups (ε = 1e-5), bias-free convolutions; the
    global average at the end takes any `image_size`.

    Source: He et al. 2015 (arXiv 1512.03385), torchvision's implementation, with the changes of PUF's code.
    """
    import torchvision  # lazily: slow to import, and only needed here

    model: nn.Module = torchvision.models.resnet18(
        num_classes=num_classes, norm_layer=partial(nn.GroupNorm, GROUPS)
    )
    model.conv1 = nn.Conv2d(in_channels, 64, kernel_size=3, stride=1, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model
