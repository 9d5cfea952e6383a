"""``data.augmentation``: what is done to training images, one name or several joined by +, in this order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from fedunlearn.config.experiment import DataConfig, ModelConfig

Step = Literal[
    "none",
    "rotate-crop-flip",
    "enlarge-crop-flip",
    "rot90-flip",
    "crop",
    "crop-flip",
    "randaugment",
    "autoaugment",
    "random-erasing",
    "augmix",
    "trivialaugment",
]
STEPS: tuple[str, ...] = get_args(Step)
OF_COLOURS = ("randaugment", "autoaugment", "augmix", "trivialaugment")
"""Those that are defined for grey and for RGB images alone."""


def steps_of(augmentation: str) -> tuple[str, ...]:
    """Return the names that are joined in ``data.augmentation``; none for "none"."""
    return () if augmentation == "none" else tuple(augmentation.split("+"))


def contradictions_of(data: DataConfig, model: ModelConfig) -> Iterator[tuple[str, str | int, str]]:
    """Yield what is wrong with ``data.augmentation``: path, value, what would be right."""
    path, augmentation = "data.augmentation", data.augmentation
    steps = steps_of(augmentation)
    unknown = next((step for step in steps if step not in STEPS), None)
    if unknown is not None:
        names = ", ".join(f'"{step}"' for step in STEPS)
        which = "" if unknown == augmentation else f'"{unknown}" '
        yield path, augmentation, f"{which}must be one of {names}; or several, joined by +"
        return
    if "none" in steps:
        yield path, augmentation, '"none" stands alone; leave it out'
    if len(set(steps)) < len(steps):
        yield path, augmentation, "must not repeat a name"
    segments = data.task == "segmentation"
    if segments and steps not in ((), ("rot90-flip",)):
        yield path, augmentation, 'must be "none" or "rot90-flip" where masks follow the image'
    if not segments and "rot90-flip" in steps:
        yield path, augmentation, f'belongs to prostate MRI, not "{data.source}"'
    if "enlarge-crop-flip" in steps and model.name != "mit-b0":
        right = 'belongs to model.name = "mit-b0", which enlarges whatever it is shown to its input-size'
        yield path, augmentation, right
    coloured = [step for step in steps if step in OF_COLOURS]
    if coloured and data.source == "synthetic-images" and data.channels not in (1, 3):
        yield "data.channels", data.channels, f'must be 1 or 3 with data.augmentation = "{augmentation}"'
