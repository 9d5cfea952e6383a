"""A picture of what augmentation does: a few images, a line for each policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedunlearn import workspace
from fedunlearn.config import Experiment
from fedunlearn.config.augmentation import steps_of
from fedunlearn.data.augmentation import Augmentation, augmentation_of
from fedunlearn.data.augmentation.policies import TRANSFORMS
from fedunlearn.data.pixels import Pixels
from fedunlearn.errors import UserError
from fedunlearn.randomness import torch_generator

SHOWN = 8
"""Images in a line."""
INCHES = 0.8
"""Side of an image."""
NAMES = 1.4
"""Width of what stands before a line, in inches."""
DPI = 90


def draw_augmentations(experiment: Experiment, path: Path) -> None:
    """Write a picture of an experiment's training images, one of each class, under every policy.

    Lines: as they are; by the part of ``data.augmentation`` that is no policy, the default being "crop-flip"; by
    that and each of the policies.

    Raises
    ------
    UserError
        If its targets are masks, which no policy leaves in place, or the file is to be no PNG.
    """
    if experiment.data.task != "classification":
        raise UserError("data augmentations: policies are for classification, and these images have masks")
    if path.suffix.lower() != ".png":
        raise UserError(f"--out {path}: must end in .png")
    data = workspace.data_of(experiment, experiment.seeds[0])
    assert data.pixels is not None
    labels = data.train_labels.cpu().numpy()
    rows = torch.from_numpy(np.sort(np.unique(labels, return_index=True)[1])[:SHOWN])
    base = "+".join(step for step in steps_of(experiment.data.augmentation) if step not in TRANSFORMS)
    lines = policies_of(base or "crop-flip")
    images = data.train_images.cpu().index_select(0, rows)
    write_sheet(images, data.pixels, made_of(experiment, lines, data.pixels), path, seed=experiment.seeds[0])


def made_of(experiment: Experiment, lines: Sequence[str], pixels: Pixels) -> dict[str, Augmentation | None]:
    """Return, by value of ``data.augmentation``, what it would do in an experiment."""
    return {
        name: augmentation_of(replace(experiment, data=replace(experiment.data, augmentation=name)), pixels)
        for name in lines
    }


def policies_of(base: str) -> list[str]:
    """Return the study's values of ``data.augmentation``: none, a base, and the base with each of the policies."""
    return ["none", base, *(f"{base}+{policy}" for policy in TRANSFORMS)]


def write_sheet(
    images: Tensor, pixels: Pixels, lines: Mapping[str, Augmentation | None], path: Path, *, seed: int
) -> None:
    """Write a PNG with a line of images for each augmentation; all of them begin with the same draws.

    Parameters
    ----------
    images : Tensor, shape (n, channels, height, width)
        Normalised, 1 or 3 channels; of more the first three are shown, of two the first.
    lines
        By the name that stands before the line.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # lazily: slow to import
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(INCHES * len(images) + NAMES + 0.1, INCHES * len(lines)), dpi=DPI)
    axes = figure.subplots(len(lines), len(images), squeeze=False)
    targets = torch.zeros(len(images), dtype=torch.int64)
    for (name, augmentation), line in zip(lines.items(), axes, strict=True):
        changed = images
        if augmentation is not None:
            draws = augmentation.draw(len(images), torch_generator(seed, "augmentation"))
            changed, _ = augmentation.apply(images, targets, draws)
        shown = pixels.levels(changed).permute(0, 2, 3, 1)
        shown = shown[..., :3] if shown.shape[3] >= 3 else shown[..., :1].expand(-1, -1, -1, 3)
        for image, axis in zip(shown, line, strict=True):
            axis.imshow(image.numpy(), interpolation="nearest")
            axis.set_axis_off()
        words = name.replace("+", " +\n")
        line[0].text(-0.15, 0.5, words, transform=line[0].transAxes, ha="right", va="center", fontsize=9)
    wide = figure.get_figwidth()
    figure.subplots_adjust(
        left=NAMES / wide, right=1 - 0.1 / wide, top=0.99, bottom=0.01, wspace=0.06, hspace=0.06
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    # 256 colours are a third of the bytes, and enough to see what happens.
    drawn = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    Image.fromarray(drawn).convert("RGB").quantize(256).save(path, optimize=True)
