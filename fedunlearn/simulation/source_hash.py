"""The source of a routine that another package provides, for the key of the branches that run it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

from fedunlearn import plugins, unlearning

UNKNOWN = "unknown "
"""How the hash of a source that cannot be read begins; nothing else begins so."""


def foreign_source(routine: str) -> str | None:
    """Return the SHA-256 of the source of a routine from outside fedunlearn; None of one of fedunlearn's own.

    It is about the modules in which the method, its function, its settings and its cost are written, and about all
    Python files of the packages that these are in. It is taken once per process, as modules are imported once. Where
    any of it cannot be found the answer begins with ``UNKNOWN`` and is another one every time: nothing that it says
    can be known again.
    """
    method = unlearning.method(routine)
    modules = {_module_of(part) for part in (method.unlearn, method.settings, method.passes)}
    modules |= {plugins.module_of("routines", routine)}
    outside = sorted(name for name in modules if name.partition(".")[0] != "fedunlearn")
    if not outside:
        return None
    return _hash(tuple(outside)) or f"{UNKNOWN}{uuid4().hex}"


def module_source(module: str) -> str:
    """Return the SHA-256 of the source of a module and of its package; beginning with ``UNKNOWN`` as above."""
    return _hash((module,)) or f"{UNKNOWN}{uuid4().hex}"


def _module_of(part: Any) -> str:
    """Return the name of the module in which a function, class or callable object is written; "" if unknown."""
    while isinstance(part, partial):
        part = part.func
    return getattr(part, "__module__", None) or ""


@cache
def _hash(names: tuple[str, ...]) -> str | None:
    digest = hashlib.sha256()
    for name in names:
        module, top = sys.modules.get(name), sys.modules.get(name.partition(".")[0])
        own = getattr(module, "__file__", None)
        # Of what is typed in, and not written in a file, nobody knows the source.
        if own is None or not Path(own).is_file():
            return None
        digest.update(f"{name}\n".encode() + Path(own).read_bytes())
        for relative, path in sorted(_package_files(top)):
            digest.update(f"{relative}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _package_files(top: ModuleType | None) -> Iterator[tuple[str, Path]]:
    """Yield all Python files of a package, by their paths in it; a single module has none."""
    folders: Iterable[str] = getattr(top, "__path__", ())
    for folder in map(Path, folders):
        for path in folder.rglob("*.py"):
            yield path.relative_to(folder).as_posix(), path
