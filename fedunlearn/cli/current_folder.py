"""Components that lie in the current directory, for commands to which the user names an experiment."""

from __future__ import annotations

import os
import sys


def make_importable() -> None:
    """Let ``"module:object"`` in an experiment name a module in the current directory.

    It comes last on Python's path, so that nothing in it takes the place of what is installed. Where Python was told
    to keep out of it (``-P``, ``PYTHONSAFEPATH``), it stays out. Commands that read the folder of a run, which others
    may have written, do not call this.
    """
    try:
        here = os.getcwd()  # noqa: PTH109 - as text, as Python's path has it
    except FileNotFoundError:  # it has been deleted
        return
    if not sys.flags.safe_path and here not in sys.path:
        sys.path.append(here)
