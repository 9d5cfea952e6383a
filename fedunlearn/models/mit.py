"""MiT-B0, the encoder of SegFormer, as a classifier."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn.config.conditions import PathText, Pixels
from fedunlearn.config.settings import ModelSettings
from fedunlearn.errors import ConfigError
from fedunlearn.models.weights_file import Naming

NAMING = Naming(
    body="segformer.",
    head="classifier.",
    renamed={
        r"^stages\.(\d+)\.patch_embeddings\.": r"encoder.patch_embeddings.\1.",
        r"^stages\.(\d+)\.blocks\.": r"encoder.block.\1.",
        r"^stages\.(\d+)\.layer_norm\.": r"encoder.layer_norm.\1.",
        r"\.layernorm_before\.": ".layer_norm_1.",
        r"\.layernorm_after\.": ".layer_norm_2.",
        r"\.attention\.q_proj\.": ".attention.self.query.",
        r"\.attention\.k_proj\.": ".attention.self.key.",
        r"\.attention\.v_proj\.": ".attention.self.value.",
        r"\.attention\.o_proj\.": ".attention.output.dense.",
        r"\.attention\.sequence_reduction\.sequence_reduction\.": ".attention.self.sr.",
        r"\.attention\.sequence_reduction\.layer_norm\.": ".attention.self.layer_norm.",
        r"\.mlp\.fc1\.": ".mlp.dense1.",
        r"\.mlp\.fc2\.": ".mlp.dense2.",
    },
)
"""Weights are published under other names (nvidia/mit-b0) than transformers has for them today."""
WIDTHS = (32, 64, 160, 256)
REDUCTION = 32
"""How many times smaller the last stage's side is than the image's."""


@dataclass(frozen=True)
class MiTSettings(ModelSettings):
    """What it starts from, and what size it is shown images in."""

    naming: ClassVar[Naming] = NAMING
    weights: PathText | None = None  # a safetensors file to start from; None: random
    input_size: Pixels = 224  # pixels that images are enlarged to


def mit_b0(num_classes: int, in_channels: int, settings: MiTSettings) -> nn.Module:
    """MiT-B0, a hierarchical vision transformer; images are enlarged to model.input-size pixels (extra `vit`).

    Input (n, in_channels, height, width), output logits (n, num_classes), linear in the mean over the last stage's
    pixels.

    Source: SegFormer, Xie et al. 2021 (arXiv 2105.15203), transformers' implementation. Deviations: no dropout and no
    drop-path (the authors' rate is 0.1), so that nothing is drawn in training; weights that come from no file are
    those of :mod:`fedunlearn.models.initialise`.

    Raises
    ------
    ConfigError
        transformers is not installed, or the input size is no multiple of 32.
    """
    if settings.input_size % REDUCTION:
        raise ConfigError(f"model.input-size = {settings.input_size}: must be a multiple of {REDUCTION}")
    return MixTransformer(num_classes, in_channels, settings.input_size)


class MixTransformer(nn.Module):
    """Encoder and head, under the names that transformers' image classifier has for them."""

    def __init__(self, num_classes: int, in_channels: int, input_size: int) -> None:
        super().__init__()
        # lazily: slow to import, not always there, and only needed here
        try:
            from transformers import SegformerConfig, SegformerModel
        except ImportError as error:
            raise ConfigError(
                'model.name = "mit-b0": needs transformers, which is in the extra "vit": '
                "in the clone, pip install -e '.[vit]' -c constraints.txt"
            ) from error
        settings = SegformerConfig(
            num_channels=in_channels,
            depths=[2, 2, 2, 2],
            sr_ratios=[8, 4, 2, 1],
            hidden_sizes=list(WIDTHS),
            num_attention_heads=[1, 2, 5, 8],
            mlp_ratios=[4, 4, 4, 4],
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            drop_path_rate=0.0,
        )
        self.input_size = input_size
        self.segformer = SegformerModel(settings)
        self.classifier = nn.Linear(WIDTHS[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, num_classes) of images (n, in_channels, height, width)."""
        size = (self.input_size, self.input_size)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        features: Tensor = self.segformer(images)[0]  # (n, 256, height / 32, width / 32)
        logits: Tensor = self.classifier(features.mean((2, 3)))
        return logits
