"""Settings of a component that an experiment names: a frozen dataclass with its bounds in its annotations.

``lr: Rate = 0.01`` is a number above 0 in an experiment file, in a sweep's space, in a message and in Python, refused
by the same line of the same reader, :mod:`fedunlearn.config.toml_tree`.
"""

from __future__ import annotations

from typing import Any, Self

from fedunlearn.config.toml_tree import check_names, checked


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
