"""Reading one of a run's JSON files."""

from pathlib import Path
from typing import Any

from fedunlearn import json_text
from fedunlearn.errors import RunError


def read_json(path: Path) -> Any:
    """Return the parsed file; RunError naming path and line where it is not JSON."""
    try:
        return json_text.loads(path.read_bytes(), path, allow_nan=True)
    except json_text.JsonError as error:
        raise RunError(str(error)) from error
