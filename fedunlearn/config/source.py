"""A file, its ``[smoke]`` table and ``--set`` assignments made one TOML tree that knows its origins."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from fedunlearn import text_files
from fedunlearn.config.toml_tree import Origin
from fedunlearn.errors import ConfigError, UserError
from fedunlearn.home import expanded

DEEPEST = 16
"""Tables and lists within one another; no experiment has half as many."""

_TOO_DEEP = f"tables and lists are nested deeper than {DEEPEST}"


def read_text(path: str | PathLike[str]) -> str:
    """Return the text of an experiment file, or raise a ConfigError that says why there is none."""
    path = expanded(path)
    try:
        return text_files.read_text(path)
    except FileNotFoundError:
        siblings = [sibling.name for sibling in Path(path).parent.glob("*.toml")]
        close = difflib.get_close_matches(Path(path).name, siblings, n=1)
        hint = f"; did you mean {Path(path).with_name(close[0])}?" if close else ""
        raise ConfigError(f"{path}: there is no such file{hint}") from None
    except UserError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ConfigError(f"{path}: cannot be read ({reason}); name an experiment's TOML file") from None


def parse(text: str, place: str) -> dict[str, Any]:
    """Return the tables of a TOML document, with ``[smoke]`` flattened to dotted keys."""
    try:
        table = tomllib.loads(text.removeprefix("\ufeff"))
        _refuse_depth(table, place)
    except tomllib.TOMLDecodeError as error:
        reason, line = _syntax_error(str(error), text)
        raise ConfigError(f"line {line} ({place}): not valid TOML: {reason}") from None
    except ValueError:  # of Python's int()
        raise ConfigError(
            f"{place}: contains an integer with thousands of digits; write a smaller one"
        ) from None
    except RecursionError:
        raise ConfigError(f"{place}: {_TOO_DEEP}") from None
    if isinstance(table.get("smoke"), Mapping):
        table["smoke"] = dict(_flattened(table["smoke"]))
    return table


def with_overrides(
    table: Mapping[str, Any], file: str, assignments: Sequence[str], *, smoke: bool
) -> tuple[dict[str, Any], Origin]:
    """Return the table after ``[smoke]``, if wanted, and then the assignments, and where each value is from.

    Parameters
    ----------
    table : mapping
        A document as ``parse`` returns it; left as it is.
    file : str
        The place of all that is not overridden.
    assignments : sequence of str
        "key.key=value" each; the value in TOML, or a string whose quotes the shell has eaten.
    smoke : bool
        Whether ``[smoke]`` is applied.
    """
    overrides: list[tuple[str, Any, str]] = []
    if smoke and isinstance(table.get("smoke"), Mapping):
        overrides += [(path, value, f"[smoke] of {file}") for path, value in table["smoke"].items()]
    overrides += [(*_parsed(assignment), f"--set {assignment}") for assignment in assignments]
    tree: dict[str, Any] = dict(table)
    for path, value, place in overrides:
        try:
            tree = _replaced(tree, _steps(path), value)
        except ValueError as error:
            raise ConfigError(f"{path} ({place}): {error}") from None
    if smoke:
        tree["smoke-run"] = True
    return tree, Origin(
        f"{file} with [smoke]" if smoke else file, {path: place for path, _, place in overrides}
    )


def origin_of(path: str | PathLike[str], assignments: Sequence[str] = (), *, smoke: bool = False) -> Origin:
    """Return where the values of a file are from, for errors about what only a component knows."""
    return with_overrides(parse(read_text(path), str(path)), str(path), assignments, smoke=smoke)[1]


def _parsed(assignment: str) -> tuple[str, Any]:
    path, _, text = (part.strip() for part in assignment.partition("="))
    if any("\ud800" <= character <= "\udfff" for character in assignment):
        raise ConfigError(f"--set {assignment!a}: must be text in UTF-8")
    if not path or not text or len(assignment.splitlines()) > 1:
        raise ConfigError(f"--set {' '.join(assignment.split())}: must read KEY=VALUE, such as train.lr=0.05")
    if path.startswith("smoke."):
        raise ConfigError(f"{path} (--set {assignment}): set {path.removeprefix('smoke.')} itself")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
        _refuse_depth({path: value}, "--set")
        return path, value
    except tomllib.TOMLDecodeError:
        if text[0] in "[{\"'":
            raise ConfigError(f"--set {assignment}: the value is not valid TOML") from None
        return path, text  # the shell has stripped the quotes of --set 'train.optimizer="adam"'
    except ValueError:
        raise ConfigError(f"{path} (--set): is an integer with thousands of digits") from None
    except RecursionError:
        raise ConfigError(f"{path} (--set): {_TOO_DEEP}") from None


def _steps(path: str) -> list[str | int]:
    """Split "method[2].scale" into "method", 2, "scale"."""
    if re.fullmatch(r"[\w-]+(\[\d+\])*(\.[\w-]+(\[\d+\])*)*", path) is None:
        raise ValueError("must be a dotted key, such as train.lr or method[2].scale")
    return [int(step) if bracket else step for bracket, step in re.findall(r"(\[?)([\w-]+)", path)]


def _replaced(tree: Any, steps: Sequence[str | int], value: Any) -> Any:
    """Return a copy of the tree with the value put where the steps lead; tables on the way are made."""
    if not steps:
        return value
    step, *rest = steps
    if isinstance(step, str):
        table = tree if isinstance(tree, Mapping) else {}
        return {**table, step: _replaced(table.get(step), rest, value)}
    length = len(tree) if isinstance(tree, list) else 0
    if not 1 <= step <= length:
        raise ValueError(f"there is no entry {step}; entries count from 1 and there are {length}")
    return [*tree[: step - 1], _replaced(tree[step - 1], rest, value), *tree[step:]]


def _refuse_depth(table: Mapping[str, Any], place: str) -> None:
    """Refuse what whoever walks through it, or writes it again, could not: tables and lists in one another."""
    level: list[tuple[str, Any]] = [*table.items()]
    for _ in range(DEEPEST):
        level = [
            (path, item)
            for path, outer in level
            if isinstance(outer, Mapping | list)
            for item in (outer.values() if isinstance(outer, Mapping) else outer)
        ]
        if not level:
            return
    raise ConfigError(f"{level[0][0]} ({place}): {_TOO_DEEP}")


def _flattened(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys, so that an unquoted ``train.rounds = 3`` means what the quoted key means."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _syntax_error(message: str, text: str) -> tuple[str, int]:
    """Split "Invalid value (at line 3, column 5)" into the reason and the line."""
    reason, _, where = message.rpartition(" (at ")
    line = re.match(r"line (\d+)", where)
    if len(reason) > 200:
        reason = f"{reason[:160]}…{reason[-30:]}"
    return reason, int(line[1]) if line else max(1, len(text.splitlines()))
