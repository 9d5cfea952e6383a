"""A small convolutional network without batch statistics, for digits on a laptop."""

from torch import nn

WIDTHS = (16, 32)
GROUPS = 4


def small_cnn(num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Two strided convolutions with GroupNorm and a linear layer; 20 794 parameters on MNIST.

    Input (n, in_channels, image_size, image_size), output logits (n, num_classes).

    Strides take the place of pooling, which is the slowest part of so small a network on a processor.
    GroupNorm in place of BatchNorm leaves no statistics of a client's data behind that would have to be
    forgotten too.
    """
    first, second = WIDTHS
    # Each convolution halves the side, rounding up.
    side = -(-image_size // 4)
    return nn.Sequential(
        nn.Conv2d(in_channels, first, kernel_size=5, stride=2, padding=2, bias=False),
        nn.GroupNorm(GROUPS, first),
        nn.ReLU(),
        nn.Conv2d(first, second, kernel_size=3, stride=2, padding=1, bias=False),
        nn.GroupNorm(GROUPS, second),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second * side**2, num_classes),
    )
