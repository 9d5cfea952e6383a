"""Reading one of a run's JSON files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fedunlearn import json_text
from fedunlearn.errors import RunError


def read_json(path: Path) -> Any:
    """Return the parsed file; RunError naming path and line where it is not JSON."""
    try:
        return json_text.loads(path.read_bytes(), path, allow_nan=True)
    except json_text.JsonError as error:
        raise RunError(str(error)) from error


Parsed = TypeVar("Parsed")


def parsed(path: Path, parse: Callable[[Any], Parsed], otherwise: Parsed) -> Parsed:
    """Return what is made of a JSON file; `otherwise` where there is none.

    Raises
    ------
    RunError
        It is no JSON, or not of the shape that a run writes.
    """
    if not path.exists() and not path.is_symlink():
        return otherwise
    content = read_json(path)
    try:
        return parse(content)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RunError(f"{path}: is not what a run writes ({type(error).__name__}: {error})") from error
