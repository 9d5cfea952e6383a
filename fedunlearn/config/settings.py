"""Settings of a component that an experiment names: a frozen dataclass with its bounds in its annotations.

``lr: Rate = 0.01`` is a number above 0 in an experiment file, in a sweep's space, in a message and in Python, refused
by the same line of the same reader, :mod:`fedunlearn.config.toml_tree`. What a kind of component must say before
anything is loaded stands in the class, not in the file: the task of a data source, say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from fedunlearn.config.toml_tree import check_names, checked

if TYPE_CHECKING:
    from fedunlearn.config.experiment import Experiment

Contradiction = tuple[str, Any, str]
"""Path of the value, the value (None: absent, or too long to show), what would be right."""


class Settings:
    """Base of such a dataclass: one that is made in Python, too, takes only its keys, and what they allow.

    Raises
    ------
    ConfigError
        With one line that names the setting, its value and what would be right.
    """

    def __new__(cls, *args: Any, **given: Any) -> Self:
        """Look at the names before the dataclass's own ``__init__`` does, which would raise a TypeError."""
        if given:
            check_names(cls, given)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        checked(self)

    def contradictions(self, experiment: Experiment, path: str) -> Iterator[Contradiction]:
        """Yield what contradicts the rest of an experiment. Default: nothing does.

        Parameters
        ----------
        experiment
        path
            Of the table that the settings stand in, such as "method[1]".
        """
        return iter(())

    def label(self, name: str) -> str:
        """Return what a component of this name with these settings is called where nobody gave it a label."""
        return name


@dataclass(frozen=True)
class NoSettings(Settings):
    """Of a component that has none."""


@dataclass(frozen=True)
class SourceSettings(Settings):
    """Of a data source.

    Attributes
    ----------
    task : str
        What models are to say of its images.
    classes : int or None
        How many classes it always has; None: the settings say it, or nobody before it is loaded.
    sites : bool
        Whether its images come from sites, each of which is a client.
    """

    task: ClassVar[str] = "classification"
    classes: ClassVar[int | None] = None
    sites: ClassVar[bool] = False

    def known_classes(self) -> int | None:
        """Return how many classes there will be, where that is known before the images are."""
        return self.classes


@dataclass(frozen=True)
class PartitionSettings(Settings):
    """Of a partition; ``of_sites``: it deals out images that come from sites, and no others."""

    of_sites: ClassVar[bool] = False


@dataclass(frozen=True)
class ModelSettings(Settings):
    """Of a model.

    Attributes
    ----------
    tasks : tuple of str
        What its outputs can be.
    naming : fedunlearn.models.weights_file.Naming or None
        The names in a file of weights, of a model that can start from one: its key ``weights``.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    naming: ClassVar[Any] = None


@dataclass(frozen=True)
class AugmentationSettings(Settings):
    """Of an augmentation: it has no keys of its own; ``tasks``: those whose targets it keeps right."""

    tasks: ClassVar[tuple[str, ...]] = ("classification",)
