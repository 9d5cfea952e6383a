"""TOML to a tree of frozen dataclasses and back, driven by the dataclasses' own annotations.

A field ``lr_decay: Annotated[float, above(0)] = 1.0`` is the key ``lr-decay``, a number, refused unless > 0.
Kinds understood: ``str``, ``bool``, ``int``, ``float`` (a whole number will do), ``Literal`` of strings,
``tuple[X, ...]`` (a list), ``dict`` (a table, kept as it is), dataclasses (a table), and unions of kinds
that differ in shape.
``field(metadata={"key": "method"})`` gives a field another key. ``None`` is the absent key. A field that is
annotated with ``SettingsOf`` holds the settings of a component that the table names, see ``components.py``.
Every refusal is one line, ``path = value (place): what would be right``; list items count from 1.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import numbers
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self, TypeVar, Union, get_args, get_origin

from fedunlearn.config.components import (
    SettingsOf,
    Unread,
    key_of,
    keys_of,
    left_behind,
    settings_fields,
    type_of,
    whose_key,
)
from fedunlearn.config.conditions import Must, Refused
from fedunlearn.config.origin import Origin as Origin
from fedunlearn.config.toml_text import bare, inline
from fedunlearn.errors import ConfigError

Tree = TypeVar("Tree")

SCALARS: dict[type, str] = {
    str: "must be a string in quotes",
    bool: "must be true or false",
    int: "must be a whole number",
    float: "must be a finite number",
}


def read(kind: type[Tree], table: Mapping[str, Any], origin: Origin, path: str = "") -> Tree:
    """Return the dataclass ``kind`` filled from a parsed TOML document, or from its table at ``path``.

    Raises
    ------
    ConfigError
        At the first unknown key, missing key, wrong type or impossible value.
    """
    return typing.cast(Tree, _read_table(kind, table, path, origin))


def read_setting(tree: Any, key: str, value: Any, path: str, origin: Origin) -> Any:
    """Return the value of one key of a table that the dataclass ``tree`` was read from, at ``path``.

    Parameters
    ----------
    tree
        A dataclass, whose components have been chosen.
    key
        Of the table, or, dotted, of a table in it.

    Raises
    ------
    ConfigError
        The key is unknown, or its value of the wrong type or impossible.
    """
    cls: Any = type(tree)
    first, _, rest = key.partition(".")
    parts, known = settings_fields(cls), keys_of(cls)
    if first in known:
        name = known[first].name
        if name in parts and not rest:
            table = _below(path, first)
            raise origin.error(table, value, f"must be a table, written [{table}]")
        if name in parts:
            return read_setting(getattr(tree, name), rest, value, _below(path, first), origin)
        return _read(_kinds(cls)[name], value, _below(path, key), origin)
    beside = [getattr(tree, name) for name, of in parts.items() if of.beside]
    for settings in beside:
        if first in keys_of(type(settings)):
            return read_setting(settings, key, value, path, origin)
    every = [*known, *(other for settings in beside for other in keys_of(type(settings)))]
    raise origin.error(_below(path, key), value, _unknown(first, every, f"{path}." if path else ""))


class OfKeys:
    """Base of a dataclass that its keys can make, with ``_`` for ``-``: ``DataConfig.of(alpha=0.1)``."""

    @classmethod
    def of(cls, **keys: Any) -> Self:
        """Return the dataclass of its table's keys, its components' among them; None is an absent key.

        Raises
        ------
        ConfigError
            As :func:`read`; the place is the name of the class.
        """
        table = {
            key.replace("_", "-"): plain(_as_python(value))
            for key, value in keys.items()
            if value is not None
        }
        return read(cls, table, Origin(cls.__name__))


def fill_settings(tree: Any) -> None:
    """Give a dataclass that was made in Python the settings of its components where they are left out, in place.

    Raises
    ------
    ConfigError
        A component is unknown or broken, or what is given are no settings of it.
    """
    cls: Any = type(tree)
    origin = Origin(cls.__name__)
    for name, of in settings_fields(cls).items():
        chosen, given = getattr(tree, of.named_by), getattr(tree, name)
        if isinstance(given, Unread):
            continue
        kind: Any = _type_of(of, chosen, of.named_by, origin)
        if isinstance(given, kind):
            continue
        if given is not None and not isinstance(given, Mapping):
            raise origin.error(name, None, f"must be a {kind.__name__}, not a {type(given).__name__}")
        keys = {key.replace("_", "-"): plain(value) for key, value in (given or {}).items()}
        needed = f'{of.named_by} = "{chosen}"'
        object.__setattr__(tree, name, _read_table(kind, keys, name, origin, needed_by=needed))


def checked(tree: Tree) -> Tree:
    """Return a dataclass that was made in Python after its values were read as a file's would be.

    Numbers of NumPy and whole numbers where others are due become plain ones, in place.

    Raises
    ------
    ConfigError
        A value of the wrong type, or an impossible one; the place is the name of the class.
    """
    assert dataclasses.is_dataclass(tree)
    cls: Any = type(tree)
    origin, kinds, parts = Origin(cls.__name__), _kinds(cls), settings_fields(cls)
    for field in dataclasses.fields(tree):
        if field.name in parts:
            continue
        given = getattr(tree, field.name)
        if given is None and types.NoneType in get_args(kinds[field.name]):
            continue
        value = _read(kinds[field.name], plain(_as_python(given)), field.name, origin)
        if type(value) is not type(given):
            object.__setattr__(tree, field.name, value)
    fill_settings(tree)
    return tree


def check_names(kind: Any, given: Mapping[str, Any]) -> None:
    """Refuse keywords of which a dataclass that is made in Python has no field.

    Raises
    ------
    ConfigError
        At the first; the place is the name of the class.
    """
    known = [field.name for field in dataclasses.fields(kind)]
    for name, value in given.items():
        if name not in known:
            raise Origin(kind.__name__).error(
                name, value, _unknown(name, known, "", f"{kind.__name__} takes")
            )


def _as_python(value: Any) -> Any:
    """Return a NumPy number as the plain one, anything else as it is."""
    return value.item() if isinstance(value, numbers.Real) and hasattr(value, "item") else value


def _below(path: str, key: str) -> str:
    return f"{path}.{bare(key)}" if path else bare(key)


def plain(tree: Any) -> Any:
    """Return dataclasses as dicts under their TOML keys and tuples as lists, the inverse of ``read``.

    Every setting is there, defaults too; left out are None and the empty lists and tables of the default.
    """
    if isinstance(tree, Unread):
        return tree.keys
    if not dataclasses.is_dataclass(tree):
        return [plain(item) for item in tree] if isinstance(tree, tuple) else tree
    cls: Any = type(tree)
    parts = settings_fields(cls)
    found: dict[str, Any] = {}
    for field in dataclasses.fields(tree):
        value = plain(getattr(tree, field.name))
        if field.name in parts and parts[field.name].beside:
            found |= value
        elif not _is_absent(field, value):
            found[key_of(field)] = value
    return found


def _is_absent(field: dataclasses.Field[Any], value: Any) -> bool:
    return value is None or (value == [] and field.default == ()) or value == {}


@functools.cache
def _kinds(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _read(kind: Any, value: Any, path: str, origin: Origin) -> Any:
    conditions: list[Any] = []
    if get_origin(kind) is Annotated:
        kind, *conditions = get_args(kind)
    for condition in conditions:
        if isinstance(condition, Refused) and isinstance(value, str) and value in condition.reasons:
            raise origin.error(path, value, condition.reasons[value])
    result = _read_kind(kind, value, path, origin)
    for condition in conditions:
        if isinstance(condition, Must) and not condition.holds(result):
            raise origin.error(path, value, condition.text)
    return result


def _read_kind(kind: Any, value: Any, path: str, origin: Origin) -> Any:
    outer = get_origin(kind)
    if outer in (Union, types.UnionType):
        return _read_union(kind, value, path, origin)
    if dataclasses.is_dataclass(kind):
        return _read_table(kind, value, path, origin)
    if outer is Literal:
        return _read_choice(get_args(kind), value, path, origin)
    if outer is tuple:
        return _read_list(get_args(kind)[0], value, path, origin)
    if outer is dict:
        if not isinstance(value, Mapping):
            raise origin.error(path, value, f"must be a table, written [{path}]")
        return dict(value)
    if kind not in SCALARS:
        raise TypeError(f"{path}: a setting of type {kind} cannot be read from a file")
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < 2**1000 else math.inf
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise origin.error(path, value, SCALARS[kind])
    return value


def _read_table(kind: Any, value: Any, path: str, origin: Origin, *, needed_by: str = "") -> Any:
    if kind is Unread:
        return Unread(dict(value))
    if not isinstance(value, Mapping):
        raise origin.error(path, value, f"must be a table, written [{path}]")
    fields, kinds, parts = keys_of(kind), _kinds(kind), settings_fields(kind)
    prefix = f"{path}." if path else ""
    missing = f"is required by {needed_by}" if needed_by else "is required and missing"
    types = {name: _chosen_type(kind, of, value, prefix, origin, missing) for name, of in parts.items()}
    beside = {name: keys_of(types[name]) for name, of in parts.items() if of.beside}
    unread = any(types[name] is Unread for name in beside)
    theirs: dict[str, dict[str, Any]] = {name: {} for name in beside}
    for key, item in value.items():
        takers = [name for name, keys in beside.items() if key in keys or unread]
        if key in fields:
            continue
        if len(takers) > 1:
            both = " and ".join(f'{parts[n].named_by} = "{value[parts[n].named_by]}"' for n in takers)
            raise origin.error(prefix + bare(key), item, f"is a setting of both {both}")
        if takers:
            theirs[takers[0]][key] = item
        elif not left_behind(kind, key, prefix, origin):
            every = [*fields, *(other for keys in beside.values() for other in keys)]
            raise origin.error(prefix + bare(key), item, whose_key(kind, key) or _unknown(key, every, prefix))
    settings: dict[str, Any] = {}
    for key, field in fields.items():
        if field.name in parts:
            settings[field.name] = _read_table(types[field.name], value.get(key, {}), prefix + key, origin)
        elif key in value:
            settings[field.name] = _read(kinds[field.name], value[key], prefix + key, origin)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise origin.error(prefix + key, None, missing)
    for name, keys in theirs.items():
        named_by = parts[name].named_by
        chosen = settings.get(named_by, _default(kind, named_by))
        needed = f'{named_by.replace("_", "-")} = "{chosen}"'
        settings[name] = _read_table(types[name], keys, path, origin, needed_by=needed)
    return kind(**settings)


def _chosen_type(
    cls: Any, of: SettingsOf, table: Mapping[str, Any], prefix: str, origin: Origin, missing: str
) -> Any:
    """Return the dataclass of the settings of the component that a table names."""
    (field,) = (field for field in dataclasses.fields(cls) if field.name == of.named_by)
    key = key_of(field)
    if key not in table:
        if field.default is dataclasses.MISSING:
            raise origin.error(prefix + key, None, missing)
        return type_of(of.kind, field.default)
    name = _read(_kinds(cls)[of.named_by], table[key], prefix + key, origin)
    kind = _type_of(of, name, prefix + key, origin)
    if of.beside and (taken := keys_of(cls).keys() & keys_of(kind).keys()):
        why = f'is broken: its setting "{sorted(taken)[0]}" is the name of another key'
        raise origin.error(prefix + key, name, why)
    return kind


def _type_of(of: SettingsOf, name: str, path: str, origin: Origin) -> Any:
    try:
        return type_of(of.kind, name)
    except ConfigError as error:
        raise origin.error(path, name, str(error)) from error


def _default(cls: Any, name: str) -> Any:
    return next(field.default for field in dataclasses.fields(cls) if field.name == name)


def _read_list(kind: Any, value: Any, path: str, origin: Origin) -> tuple[Any, ...]:
    if not isinstance(value, list):
        of_tables = dataclasses.is_dataclass(kind)
        form = f" of tables, each written [[{path}]]" if of_tables else f", such as {inline([value])}"
        raise origin.error(path, value, f"must be a list{form}")
    return tuple(_read(kind, item, f"{path}[{index}]", origin) for index, item in enumerate(value, start=1))


def _read_choice(choices: tuple[str, ...], value: Any, path: str, origin: Origin) -> str:
    if isinstance(value, str) and value in choices:
        return value
    names = ", ".join(f'"{choice}"' for choice in choices)
    must = f"must be {names}" if len(choices) == 1 else f"must be one of {names}"
    close = difflib.get_close_matches(value, choices, n=1) if isinstance(value, str) else []
    raise origin.error(path, value, must + (f'; did you mean "{close[0]}"?' if close else ""))


def _read_union(kind: Any, value: Any, path: str, origin: Origin) -> Any:
    alternatives = [alternative for alternative in get_args(kind) if alternative is not types.NoneType]
    if len(alternatives) == 1:
        return _read(alternatives[0], value, path, origin)
    for alternative in alternatives:
        if _has_shape(alternative, value):
            return _read(alternative, value, path, origin)
    forms = [_form(alternative) for alternative in alternatives]
    raise origin.error(path, value, f"must be {', '.join(forms[:-1])} or {forms[-1]}")


def _without_conditions(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _has_shape(kind: Any, value: Any) -> bool:
    kind = _without_conditions(kind)
    if dataclasses.is_dataclass(kind):
        return isinstance(value, Mapping)
    if get_origin(kind) is tuple:
        return isinstance(value, list)
    if kind is float:
        return type(value) in (int, float)
    if kind is str:
        return isinstance(value, str)
    return isinstance(value, str) and value in get_args(kind)


def _form(kind: Any) -> str:
    kind = _without_conditions(kind)
    if dataclasses.is_dataclass(kind):
        return f"a table of {' and '.join(key_of(field) for field in dataclasses.fields(kind))}"
    if get_origin(kind) is tuple:
        return "a list of lists" if get_origin(_without_conditions(get_args(kind)[0])) is tuple else "a list"
    if kind in SCALARS:
        return {float: "a number", str: "a string"}[kind]
    return inline(get_args(kind)[0])


def _unknown(key: str, known: Iterable[str], prefix: str, whose: str = "the keys at the top are") -> str:
    known = list(known)
    close = difflib.get_close_matches(key, known, n=1)
    if close:
        return f"unknown key; did you mean {prefix}{close[0]}?"
    owner = f"{prefix.removesuffix('.')} takes" if prefix else whose
    return f"unknown key; {owner} {', '.join(known)}"
