"""Where the command line writes."""

from __future__ import annotations

import os

from rich.console import Console


def console() -> Console:
    """Return the console: as wide as the terminal; where there is none $COLUMNS, or 100."""
    found = Console()
    return found if found.is_terminal else Console(width=int(os.environ.get("COLUMNS") or 100))
