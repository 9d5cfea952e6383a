"""Reading one of a run's JSON files."""

import json
from pathlib import Path
from typing import Any

from fedunlearn.errors import RunError


def read_json(path: Path) -> Any:
    """Return the parsed file; RunError naming path and line where it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path}: not valid JSON ({error})") from error
