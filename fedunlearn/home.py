"""Paths as people write them, and where things lie that belong to a user: who may have no home, nor even a name."""

from __future__ import annotations

import atexit
import getpass
import os
import shutil
import tempfile
from functools import cache
from os import PathLike
from pathlib import Path

from fedunlearn.errors import UserError


def expanded(path: str | PathLike[str]) -> Path:
    """Return a path with ``~`` and ``~user`` expanded.

    Raises
    ------
    UserError
        Nobody of that name has a home here, or it is no path at all.
    """
    text = os.fspath(path)
    if not text or "\0" in text:
        raise UserError(f"{text!r}: is not a path; name a file or folder")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        whose = Path(text).parts[0]
        raise UserError(f"{text}: there is no home folder for {whose}; write the full path") from None


expanded.__name__ = "path"  # as the command line's help calls what this function reads


def is_text(path: PathLike[str]) -> bool:
    """Return whether a path can be written as UTF-8: a file's name may be any bytes, which some libraries refuse."""
    return not any("\ud800" <= character <= "\udfff" for character in os.fspath(path))


def path_in(variable: str) -> Path | None:
    """Return the path that an environment variable names; None where it is not set, or empty."""
    given = os.environ.get(variable)
    if not given:
        return None
    try:
        return expanded(given)
    except UserError as error:
        raise UserError(f"${variable}: {error}") from None


def user_folder(variable: str, default: str) -> Path | None:
    """Return a folder of the XDG specification, such as $XDG_CACHE_HOME with "~/.cache"; None without a home."""
    given = os.environ.get(variable, "")
    if Path(given).is_absolute():  # a relative one is to be ignored, says the specification
        return Path(given)
    try:
        return Path(default).expanduser()
    except RuntimeError:
        return None


def cache_home() -> Path:
    """Return the folder for caches: the user's, or where nothing can be kept there a temporary one.

    A temporary one is the process's own and goes with it.
    """
    users = user_folder("XDG_CACHE_HOME", "~/.cache")
    return users if users is not None and _can_be_written(users) else temporary_cache()


@cache
def temporary_cache() -> Path:
    """Make a folder that lasts as long as this process."""
    folder, owner = tempfile.mkdtemp(prefix="fedunlearn-cache-"), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # and no child that was forked
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return Path(folder)


def why_temporary() -> str:
    """Say in a line why things that could be kept are made again every time; "" where they are kept."""
    users = user_folder("XDG_CACHE_HOME", "~/.cache")
    if _can_be_written(users):
        return ""
    where = "there is no home folder" if users is None else f"{users} cannot be written to"
    return f"{where}: prepared data are kept only for this run; set FEDUNLEARN_CACHE to a folder you can write to"


def give_name() -> None:
    """Have a user without an entry in the system's list of users a name: libraries that ask for one fail otherwise.

    MONAI asks when it is imported, torch where it compiles.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):  # the latter from Python 3.13 on
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"


def settle_matplotlib() -> None:
    """Give matplotlib, which is about to be imported, a folder for its caches where the user has none."""
    if "MPLCONFIGDIR" in os.environ:
        return
    homes = (user_folder("XDG_CONFIG_HOME", "~/.config"), user_folder("XDG_CACHE_HOME", "~/.cache"))
    if not all(map(_can_be_written, homes)):
        os.environ["MPLCONFIGDIR"] = str(temporary_cache() / "matplotlib")


def _can_be_written(folder: Path | None) -> bool:
    """Return whether files can be made in a folder, or the folder itself where it is not there yet."""
    if folder is None:
        return False
    there = next((place for place in (folder, *folder.parents) if place.exists()), None)
    return there is not None and there.is_dir() and os.access(there, os.W_OK | os.X_OK)
