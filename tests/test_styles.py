"""Rich passes over a style, a side or an overflow that it does not know, in silence: it knows all of ours."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from rich.console import JustifyMethod, OverflowMethod
from rich.style import Style

ROOT = Path(__file__).parents[1] / "fedunlearn"
STYLES = ("style", "title_style", "caption_style", "header_style", "border_style")
SIDES, OVERFLOWS = frozenset(get_args(JustifyMethod)), frozenset(get_args(OverflowMethod))
FILES = [
    path.relative_to(ROOT).as_posix()
    for path in sorted(ROOT.rglob("*.py"))
    if "from rich" in path.read_text(encoding="utf-8")
]


def words_of(source: str) -> Iterator[tuple[str, str]]:
    """Yield every keyword of a call, but for HTML's, with each of the words that it may be given."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id == "tag"):
            for keyword in node.keywords:
                for part in ast.walk(keyword.value):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str) and keyword.arg:
                        yield keyword.arg, part.value


@pytest.mark.parametrize("file", FILES)
def test_rich_knows_every_style_side_and_overflow(file: str) -> None:
    for keyword, word in words_of((ROOT / file).read_text(encoding="utf-8")):
        if keyword in STYLES:
            Style.parse(word)
        elif keyword.endswith("justify"):
            assert word in SIDES
        elif keyword == "overflow":
            assert word in OVERFLOWS


def test_the_rule_sees_them() -> None:
    seen = [keyword for file in FILES for keyword, _ in words_of((ROOT / file).read_text(encoding="utf-8"))]
    assert min(seen.count(keyword) for keyword in ("style", "justify", "overflow")) >= 5
