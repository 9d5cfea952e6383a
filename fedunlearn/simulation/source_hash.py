"""The source that computes something, for the key under which it is kept: modules, and all that they import.

What is imported is read from the source: modules of fedunlearn, and of the packages whose modules are asked for.
Other packages (torch, numpy) are in a key by their versions. Components are imported by name, at run time: each has
a hash of its own.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from functools import cache, lru_cache, partial
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

from fedunlearn import plugins

ROOT = Path(__file__).resolve().parents[2]
"""The folder that fedunlearn is in."""
COMPUTES_NOTHING = ("fedunlearn", "fedunlearn.plugins")
"""The version, and the table of names, which grows with every component."""
UNKNOWN = "unknown "
"""How the hash of a source that cannot be read begins; nothing else begins so."""


def component_source(kind: str, name: str) -> str:
    """Return the hash of a component's source, see :func:`source_of`.

    It is about the module in which it is named and those in which it, its settings and, of a routine, its parts are
    written.
    """
    found = plugins.find(kind, name)
    parts = [found, plugins.settings_type(kind, name)]
    parts += [getattr(found, part) for part in ("unlearn", "passes") if kind == "routines"]
    written = {_module_of(part) for part in parts}
    return source_of(*sorted({plugins.module_of(kind, name), *written} - {""}))


def source_of(*modules: str, alone: tuple[str, ...] = ()) -> str:
    """Return the SHA-256 of the source of modules, and of all that they import of their packages and of fedunlearn.

    Of modules in ``alone`` nothing is followed that they import. It is taken once per process, as modules are
    imported once. Where a module's source cannot be found the answer begins with ``UNKNOWN`` and is another one every
    time: nothing that it says can be known again.
    """
    return _hash(modules, alone) or f"{UNKNOWN}{uuid4().hex}"


def closure(*modules: str) -> dict[str, Path]:
    """Return the files of modules and of all that they import, directly or not, by the modules' names."""
    packages = {"fedunlearn", *(name.partition(".")[0] for name in modules)}
    found: dict[str, Path] = {}
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name in found or name in COMPUTES_NOTHING or name.partition(".")[0] not in packages:
            continue
        path = file_of(name)
        if path is None:
            continue  # a function of a module, say
        found[name] = path
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        todo += _imports(path.read_bytes(), package)
    return found


def file_of(module: str) -> Path | None:
    """Return the file that a module is written in; None if there is no such module, or no file of it."""
    if module.partition(".")[0] == "fedunlearn":
        place = ROOT.joinpath(*module.split("."))
        path: Path | None = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    else:
        origin = (_spec(module) or ModuleSpec(module, None)).origin
        path = Path(origin) if origin and origin.endswith(".py") else None
    return path if path is not None and path.is_file() else None


def _spec(module: str) -> ModuleSpec | None:
    loaded = sys.modules.get(module)
    if loaded is not None:
        return loaded.__spec__
    try:
        return find_spec(module)
    except (ImportError, ValueError):
        return None


def _module_of(part: Any) -> str:
    """Return the name of the module in which a function, class or callable object is written; "" if unknown."""
    while isinstance(part, partial):
        part = part.func
    return getattr(part, "__module__", None) or ""


@cache
def _hash(modules: tuple[str, ...], alone: tuple[str, ...] = ()) -> str | None:
    files = closure(*modules) | {name: path for name in alone if (path := file_of(name)) is not None}
    if not files.keys() >= {
        *modules,
        *alone,
    }:  # of what is typed in, and not written in a file, nobody knows the source
        return None
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name}\n".encode() + path.read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=1024)
def _imports(source: bytes, package: str) -> tuple[str, ...]:
    """Return whatever modules a source may import: also names that are functions of a module."""
    found: list[str] = []
    for node in _statements(ast.parse(source).body):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found += [name, *(f"{name}.{alias.name}" for alias in node.names)]
    return tuple(found)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield statements and what is within them, but for what is imported for its types alone."""
    for node in body:
        yield node
        typing_alone = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ("body", "orelse", "finalbody", "handlers", "cases"):
            if not (typing_alone and inner == "body"):
                yield from _statements(getattr(node, inner, []))
