"""Every file is UTF-8 whatever the locale: no text is read or written in the encoding of whoever runs it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("fedunlearn", "strategies", "clients", "deploy", "benchmarks")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def by_locale(tree: ast.AST) -> Iterator[int]:
    """Yield the lines of calls that open a text file and do not say in which encoding."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        function = call.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if isinstance(function, ast.Attribute) and ast.unparse(function.value) == "text_files":
            continue  # which knows no other encoding
        if any(keyword.arg in ("encoding", None) for keyword in call.keywords):
            continue
        if (name in ("read_text", "write_text") and isinstance(function, ast.Attribute)) or (
            name in ("open", "fdopen") and is_text(call, name)
        ):
            yield call.lineno


def is_text(call: ast.Call, name: str) -> bool:
    """Say whether an ``open`` is of a file, by a mode that is written out, and not of bytes."""
    of_path = (
        isinstance(call.func, ast.Attribute) and name == "open" and ast.unparse(call.func) != "gzip.open"
    )
    modes = [k.value for k in call.keywords if k.arg == "mode"] + call.args[0 if of_path else 1 :][:1]
    words = [mode.value for mode in modes if isinstance(mode, ast.Constant)]
    if any(isinstance(word, str) and "b" in word for word in words):
        return False
    if not of_path:
        return name != "fdopen" or bool(words)
    return any(isinstance(word, str) and set(word) <= set("rwaxt+") for word in words) or not call.args


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("path.read_text()", True),
        ("path.write_text(text)", True),
        ("open(path)", True),
        ("path.open()", True),
        ("path.open('a')", True),
        ("os.fdopen(handle, 'w')", True),
        ("gzip.open(path, 'rt')", True),
        ("path.read_text(encoding='utf-8')", False),
        ("path.open('rb')", False),
        ("os.open(path, flags)", False),
        ("grid.open(first, last)", False),
        ("gzip.open(path, 'rb')", False),
        ("read_text(path)", False),
        ("text_files.read_text(path)", False),
    ],
)
def test_what_goes_by_the_locale_is_found(code, found):
    assert bool([*by_locale(ast.parse(code))]) == found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_opened_in_the_locale_s_encoding(path):
    assert [*by_locale(ast.parse(path.read_text(encoding="utf-8")))] == []
