"""``data.augmentation``: what is done to training images, one name or several joined by +, in this order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedunlearn import plugins
from fedunlearn.config.components import type_of
from fedunlearn.errors import ConfigError

if TYPE_CHECKING:
    from fedunlearn.config.experiment import Experiment
    from fedunlearn.config.settings import Contradiction

KIND = "augmentations"


def steps_of(augmentation: str) -> tuple[str, ...]:
    """Return the names that are joined in ``data.augmentation``; none for "none"."""
    return () if augmentation == "none" else tuple(augmentation.split("+"))


def contradictions_of(experiment: Experiment) -> Iterator[Contradiction]:
    """Yield what is wrong with ``data.augmentation``: path, value, what would be right."""
    path, augmentation = "data.augmentation", experiment.data.augmentation
    steps = steps_of(augmentation)
    try:
        types = {step: type_of(KIND, step) for step in steps}
    except ConfigError as error:
        unknown = next(step for step in steps if not _is_known(step))
        which = "" if unknown == augmentation else f'"{unknown}" '
        yield path, augmentation, f"{which}{error}; or several, joined by +"
        return
    if "none" in steps:
        yield path, augmentation, '"none" cannot be combined; leave it out'
    if len(types) < len(steps):
        yield path, augmentation, "must not repeat a name"
    task = experiment.data.task
    for step, kind in types.items():
        if task not in getattr(kind, "tasks", ()):
            fitting = [f'"{name}"' for name in plugins.KINDS[KIND].built_in if task in _tasks(name)]
            right = (
                f'"{step}" is not for {task}, which data.source = "{experiment.data.source}" is; that takes '
            )
            yield path, augmentation, f"{right}{', '.join(fitting)}"
        else:
            yield from kind().contradictions(experiment, "data")


def _is_known(step: str) -> bool:
    try:
        type_of(KIND, step)
    except ConfigError:
        return False
    return True


def _tasks(name: str) -> tuple[str, ...]:
    tasks: tuple[str, ...] = getattr(type_of(KIND, name), "tasks", ())
    return tasks
