"""TOML to a tree of frozen dataclasses and back, driven by the dataclasses' own annotations.

A field ``lr_decay: Annotated[float, above(0)] = 1.0`` is the key ``lr-decay``, a number, refused unless > 0.
Kinds understood: ``str``, ``bool``, ``int``, ``float`` (a whole number will do), ``Literal`` of strings,
``tuple[X, ...]`` (a list), ``dict`` (a table, kept as it is), dataclasses (a table), and unions of kinds
that differ in shape.
``field(metadata={"key": "method"})`` gives a field another key. ``None`` is the absent key.
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
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from fedunlearn.config.conditions import Must, Refused
from fedunlearn.config.toml_text import bare, inline
from fedunlearn.errors import ConfigError

Tree = TypeVar("Tree")

SCALARS: dict[type, str] = {
    str: "must be a string in quotes",
    bool: "must be true or false",
    int: "must be a whole number",
    float: "must be a finite number",
}


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where values come from: a file, but for the paths that something else has set."""

    file: str
    elsewhere: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def place(self, path: str) -> str:
        """Return where the value at this path was set: it, something around it, or something in it."""
        related = [known for known in self.elsewhere if _within(known, path) or _within(path, known)]
        return self.elsewhere[max(related, key=len)] if related else self.file

    def error(self, path: str, value: Any, message: str) -> ConfigError:
        """Return the one-line error; a table, too long to show, and an absent value (None) go unshown."""
        items = value if isinstance(value, list | tuple) and value else [value]
        unshown = value is None or any(isinstance(item, Mapping) for item in items)
        shown = "" if unshown else f" = {_shortened(_shown(value))}"
        return ConfigError(f"{path}{shown} ({self.place(path)}): {message}")


def read(kind: type[Tree], table: Mapping[str, Any], origin: Origin, path: str = "") -> Tree:
    """Return the dataclass ``kind`` filled from a parsed TOML document, or from its table at ``path``.

    Raises
    ------
    ConfigError
        At the first unknown key, missing key, wrong type or impossible value.
    """
    return typing.cast(Tree, _read_table(kind, table, path, origin))


def read_setting(kind: type, key: str, value: Any, path: str, origin: Origin) -> Any:
    """Return the value of one key of the dataclass ``kind``, whose table is at ``path``.

    Raises
    ------
    ConfigError
        The key is unknown, or its value of the wrong type or impossible.
    """
    fields = {key_of(field): field for field in dataclasses.fields(kind)}
    if key not in fields:
        raise origin.error(_below(path, key), value, _unknown(key, fields, f"{path}." if path else ""))
    return _read(_kinds(kind)[fields[key].name], value, _below(path, key), origin)


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
    origin, kinds = Origin(cls.__name__), _kinds(cls)
    for field in dataclasses.fields(tree):
        given = getattr(tree, field.name)
        if given is None and types.NoneType in get_args(kinds[field.name]):
            continue
        value = _read(kinds[field.name], plain(_as_python(given)), field.name, origin)
        if type(value) is not type(given):
            object.__setattr__(tree, field.name, value)
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
    if dataclasses.is_dataclass(tree):
        values = ((field, plain(getattr(tree, field.name))) for field in dataclasses.fields(tree))
        return {key_of(field): value for field, value in values if not _is_absent(field, value)}
    return [plain(item) for item in tree] if isinstance(tree, tuple) else tree


def _is_absent(field: dataclasses.Field[Any], value: Any) -> bool:
    return value is None or (value == [] and field.default == ()) or value == {}


def key_of(field: dataclasses.Field[Any]) -> str:
    """Return the TOML key of a dataclass field."""
    return str(field.metadata.get("key", field.name.replace("_", "-")))


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


def _read_table(kind: Any, value: Any, path: str, origin: Origin) -> Any:
    if not isinstance(value, Mapping):
        raise origin.error(path, value, f"must be a table, written [{path}]")
    fields = {key_of(field): field for field in dataclasses.fields(kind)}
    prefix = f"{path}." if path else ""
    for key, item in value.items():
        if key not in fields:
            raise origin.error(prefix + bare(key), item, _unknown(key, fields, prefix))
    kinds = _kinds(kind)
    settings: dict[str, Any] = {}
    for key, field in fields.items():
        if key in value:
            settings[field.name] = _read(kinds[field.name], value[key], prefix + key, origin)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise origin.error(prefix + key, None, "is required and missing")
    return kind(**settings)


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


def _within(path: str, outer: str) -> bool:
    return path == outer or path.startswith((f"{outer}.", f"{outer}["))


def _unknown(key: str, known: Iterable[str], prefix: str, whose: str = "the keys at the top are") -> str:
    known = list(known)
    close = difflib.get_close_matches(key, known, n=1)
    if close:
        return f"unknown key; did you mean {prefix}{close[0]}?"
    owner = f"{prefix.removesuffix('.')} takes" if prefix else whose
    return f"unknown key; {owner} {', '.join(known)}"


def _shown(value: Any) -> str:
    """Return a value as it would stand in a file; of what could not, Python's words on one line."""
    if type(value) is int and abs(value) > 2**1000:
        return hex(value)  # Python writes no more than 4,300 decimal digits
    try:
        return inline(value)
    except TypeError:
        return " ".join(repr(value).split())


def _shortened(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
