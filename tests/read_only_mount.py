"""Running a command where a folder cannot be written to: root by a mount of its own, others by the folder's mode."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_MOUNT = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && ! touch "$0/x" 2>/dev/null && exec "$@"'


@contextmanager
def read_only(folder: Path) -> Iterator[list[str]]:
    """Yield what is put in front of a command, in which nothing can be written to the folder; or skip the test."""
    if os.geteuid():
        modes = {path: path.stat().st_mode for path in [folder, *folder.rglob("*")] if path.is_dir()}
        for path in modes:
            path.chmod(0o555)
        yield []
        for path, mode in modes.items():
            path.chmod(mode)
        return
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "--mount", "true"], check=False).returncode
    ):
        pytest.skip("this root may not mount anything")
    yield ["unshare", "--mount", "sh", "-c", _MOUNT, str(folder)]
