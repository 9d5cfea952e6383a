"""Numbers of things, in the singular where there is one."""

from __future__ import annotations


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return "1 voxel" or "1,204 voxels".

    Parameters
    ----------
    one
        What stands behind a 1, such as "file is".
    many
        What stands behind every other number, such as "files are". Default: ``one`` with an "s".
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
