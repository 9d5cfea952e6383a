"""Small changes to a program, each of which ought to make some test fail: where they go, and what they put there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

COMPARISONS = {
    "==": "!=",
    "!=": "==",
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "is": "is not",
    "is not": "is",
    "in": "not in",
    "not in": "in",
}
ARITHMETIC = {
    "+": "-",
    "-": "+",
    "*": "/",
    "/": "*",
    "//": "*",
    "%": "//",
    "**": "*",
    "|": "&",
    "&": "|",
    "^": "|",
    "<<": ">>",
    ">>": "<<",
    "@": "*",
}
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list", "reversed": "list"}
LOGS = frozenset({"log", "debug", "info", "warning", "warn"})


@dataclass(frozen=True, order=True)
class Mutant:
    """One change of one file.

    Attributes
    ----------
    line, column, end_line, end_column : int
        What is replaced: lines from 1, columns in bytes from 0, as ``ast`` has them.
    kind : str
        Which operator made it.
    replacement : str
    """

    line: int
    column: int
    end_line: int
    end_column: int
    kind: str
    replacement: str

    def applied_to(self, source: str) -> str:
        """Return the changed program."""
        lines = source.encode().splitlines(keepends=True)
        head = b"".join(lines[: self.line - 1]) + lines[self.line - 1][: self.column]
        tail = lines[self.end_line - 1][self.end_column :] + b"".join(lines[self.end_line :])
        return (head + self.replacement.encode() + tail).decode()


def mutants_of(source: str) -> list[Mutant]:
    """Return every mutant of a program that is still a program, in order."""
    found = sorted(set(_Finder(source).found(ast.parse(source))))
    return [mutant for mutant in found if _parses(mutant.applied_to(source))]


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


class _Finder:
    """Walks a tree past what no test could notice: docstrings, functions' annotations, words of logs and of help."""

    def __init__(self, source: str) -> None:
        self._lines = source.encode().splitlines(keepends=True)

    def found(self, node: ast.AST) -> Iterator[Mutant]:
        yield from self._of(node)
        for child in _visible_children(node):
            yield from self.found(child)

    def _of(self, node: ast.AST) -> Iterator[Mutant]:
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            for before, after in pairwise(operands):
                yield from self._between(before, after, COMPARISONS, "comparison")
        elif isinstance(node, ast.BinOp):
            yield from self._between(node.left, node.right, ARITHMETIC, "arithmetic")
        elif isinstance(node, ast.AugAssign):
            changed = {f"{a}=": f"{b}=" for a, b in ARITHMETIC.items()}
            yield from self._between(node.target, node.value, changed, "arithmetic")
        elif isinstance(node, ast.BoolOp):
            for before, after in pairwise(node.values):
                yield from self._between(before, after, {"and": "or", "or": "and"}, "boolean")
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield self._instead(node, f"bool({self._text(node.operand)})", "boolean")
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            yield self._instead(node, self._text(node.operand), "arithmetic")
        elif isinstance(node, ast.If | ast.IfExp | ast.While):
            yield self._instead(node.test, f"(not ({self._text(node.test)}))", "condition")
        elif isinstance(node, ast.Constant):
            yield from self._of_constant(node)
        elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
            yield self._instead(node.value, "None", "result")
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Yield | ast.Await):
            if not _is_log(node.value):
                yield self._instead(node, "pass", "statement")
        elif isinstance(node, ast.Break):
            yield self._instead(node, "continue", "statement")
        elif isinstance(node, ast.Continue):
            yield self._instead(node, "break", "statement")
        elif isinstance(node, ast.Call):
            yield from self._of_call(node)

    def _of_constant(self, node: ast.Constant) -> Iterator[Mutant]:
        value = node.value
        if isinstance(value, bool):
            yield self._instead(node, str(not value), "constant")
        elif isinstance(value, int | float):
            yield self._instead(node, repr(value + 1), "constant")
        elif isinstance(value, str) and self._text(node)[:1] in "\"'":
            yield self._instead(node, repr(value + "!"), "constant")

    def _of_call(self, node: ast.Call) -> Iterator[Mutant]:
        if isinstance(node.func, ast.Name) and node.func.id in CALLS:
            yield self._instead(node.func, CALLS[node.func.id], "call")
        for keyword in node.keywords:
            text = self._text(keyword)
            after = self._after(keyword)
            comma = re.match(rb"\s*,", after)
            if keyword.arg is not None and keyword.arg != "help" and comma and "\n" not in text:
                end = keyword.end_col_offset + comma.end()
                if b"\n" not in comma.group():
                    yield Mutant(keyword.lineno, keyword.col_offset, keyword.end_lineno, end, "argument", "")

    def _between(
        self, before: ast.expr, after: ast.expr, table: dict[str, str], kind: str
    ) -> Iterator[Mutant]:
        """Replace an operator that stands between two expressions, on one line with the end of the first or alone."""
        first, last = before.end_lineno, after.lineno
        assert first is not None and before.end_col_offset is not None
        for line in range(first, last + 1):
            start = before.end_col_offset if line == first else 0
            end = after.col_offset if line == last else len(self._lines[line - 1])
            text = self._lines[line - 1][start:end].decode().split("#")[0]
            operator = re.sub(r"\s+", " ", text.strip(" \t\r\n()\\"))
            if operator in table:
                left = len(text) - len(text.lstrip(" \t()\\"))
                column = start + left
                width = len(text.strip(" \t\r\n()\\"))
                yield Mutant(line, column, line, column + width, kind, table[operator])

    def _instead(self, node: ast.expr | ast.stmt, replacement: str, kind: str) -> Mutant:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return Mutant(node.lineno, node.col_offset, node.end_lineno, node.end_col_offset, kind, replacement)

    def _text(self, node: ast.expr | ast.keyword) -> str:
        assert node.end_lineno is not None
        lines = self._lines[node.lineno - 1 : node.end_lineno]
        lines[-1] = lines[-1][: node.end_col_offset]
        lines[0] = lines[0][node.col_offset :]
        return b"".join(lines).decode()

    def _after(self, node: ast.keyword) -> bytes:
        assert node.end_lineno is not None
        return self._lines[node.end_lineno - 1][node.end_col_offset :]


def _visible_children(node: ast.AST) -> Iterator[ast.AST]:
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns") and not _is_condition(node, name):
            continue
        if isinstance(node, ast.arg | ast.JoinedStr | ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.keyword) and node.arg == "help":
            continue
        if isinstance(node, ast.Call) and _is_log(node):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_docstring(child):
                yield child


def _is_condition(node: ast.AST, name: str) -> bool:
    """Whether an annotation does something: it carries conditions that are looked at."""
    return (
        name == "annotation"
        and isinstance(node, ast.AnnAssign)
        and any(isinstance(inner, ast.Call) for inner in ast.walk(node.annotation))
    )


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_log(node: ast.expr) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    return name in LOGS
