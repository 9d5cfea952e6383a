"""Where the experiment of a Flower run lies: in the app bundle, which is the same on the server and on every node."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from fedunlearn.errors import ConfigError

BUNDLE = Path(__file__).resolve().parents[2]
"""The folder that the package is in: the unpacked bundle, or the source tree."""


@lru_cache(maxsize=8)  # asked with every message
def in_bundle(named: str) -> str:
    """Return the path of the experiment that a run-config names: of a relative one, where it is in the bundle.

    Apps run with another working directory. What is not in the bundle is returned as it is named.
    """
    path = BUNDLE / named  # an absolute path stays as it is
    return str(path) if path.is_file() else named


def experiment_path(named: str) -> Path:
    """Return the file that a run-config's ``experiment`` names; see :func:`in_bundle`.

    Raises
    ------
    ConfigError
        If there is no such file on this machine.
    """
    path = BUNDLE / named
    if path.is_file():
        return path
    if Path(named).is_absolute():
        remedy = "it must exist under this path on every machine; experiments/ is part of the app bundle"
    else:
        found = sorted(str(p.relative_to(BUNDLE)) for p in BUNDLE.glob("experiments/**/*.toml"))
        remedy = f"the app bundle holds {', '.join(found) or 'no experiments'}"
    raise ConfigError(f'experiment = "{named}" (run config): there is no such file; {remedy}')
