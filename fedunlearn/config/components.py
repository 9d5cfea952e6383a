"""Where a table of the file holds the settings of a component that one of its keys names.

``settings: Annotated[Any, SettingsOf("strategies", "name")]`` is filled with the settings of the strategy that the
field ``name`` names. Their keys stand beside it in its table, or, with ``beside=False``, in a table of their own.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterator
from typing import Any

from fedunlearn import plugins
from fedunlearn.config.origin import Origin
from fedunlearn.config.toml_text import bare
from fedunlearn.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class SettingsOf:
    """Marks, in ``Annotated``, a field that holds the settings of a component.

    Attributes
    ----------
    kind : str
        Of component, see :data:`fedunlearn.plugins.KINDS`.
    named_by : str
        The field that names the component.
    beside : bool
        Whether its keys stand in the same table as the name.
    """

    kind: str
    named_by: str
    beside: bool = True


@dataclasses.dataclass(frozen=True)
class Unread:
    """Settings that stay as the file has them: Flower is not installed, and nothing here could run the component."""

    keys: dict[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    def contradictions(self, experiment: Any, path: str) -> Iterator[Any]:
        """Yield nothing: nothing is known of them."""
        return iter(())

    def label(self, name: str) -> str:
        """Return the component's name, of which nothing more is known."""
        return name


@functools.cache
def settings_fields(cls: Any) -> dict[str, SettingsOf]:
    """Return the fields of a dataclass that hold settings of components."""
    found = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        for condition in getattr(hint, "__metadata__", ()):
            if isinstance(condition, SettingsOf):
                found[name] = condition
    return found


def type_of(kind: str, name: str) -> type:
    """Return the dataclass of a component's settings; :class:`Unread` of a strategy where Flower is not installed.

    Raises
    ------
    ConfigError
        There is no such component, or it is broken.
    """
    try:
        return plugins.settings_type(kind, name)
    except ConfigError as error:
        cause = error.__cause__
        missing = cause.name or "" if isinstance(cause, ModuleNotFoundError) else ""
        if kind == "strategies" and missing.partition(".")[0] == "flwr":
            return Unread
        raise


def owners(kind: str, key: str) -> list[str]:
    """Return the names of all components of a kind that have a setting of this key."""
    found = []
    for name in plugins.names(kind):
        try:
            has = key in keys_of(type_of(kind, name))
        except ConfigError:
            continue
        if has:
            found.append(name)
    return found


def key_of(field: dataclasses.Field[Any]) -> str:
    """Return the TOML key of a dataclass field."""
    return str(field.metadata.get("key", field.name.replace("_", "-")))


def keys_of(cls: Any) -> dict[str, dataclasses.Field[Any]]:
    """Return the keys of a dataclass's table: all fields but those whose own keys stand beside the others."""
    parts = settings_fields(cls)
    return {
        key_of(field): field
        for field in dataclasses.fields(cls)
        if field.name not in parts or not parts[field.name].beside
    }


def left_behind(cls: Any, key: str, prefix: str, origin: Origin) -> bool:
    """Return whether a key belonged to a component in whose place something else than the file has put another."""
    return prefix + bare(key) not in origin.elsewhere and any(
        prefix + of.named_by.replace("_", "-") in origin.elsewhere and owners(of.kind, key)
        for of in settings_fields(cls).values()
    )


def whose_key(cls: Any, key: str) -> str:
    """Say whose key it is that the component which was chosen does not take; return "" if it is nobody's."""
    for of in settings_fields(cls).values():
        if of.beside and (names := owners(of.kind, key)):
            first = ", ".join(f'"{name}"' for name in names[:-1])
            listed = f'{first} or "{names[-1]}"' if first else f'"{names[-1]}"'
            return f"belongs to {of.named_by.replace('_', '-')} = {listed}; leave it out"
    return ""
