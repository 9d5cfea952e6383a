"""What is passed on stays as it was made: every dataclass is frozen, but for the few that gather while they work."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("fedunlearn", "strategies", "clients")
GATHER = {
    ("fedunlearn/federation/answers.py", "Answers"): "counts answers as they come",
    ("fedunlearn/federation/ray_engine/dispatcher.py", "Slot"): "knows what a worker is busy with",
    ("fedunlearn/html/svg.py", "Drawing"): "collects notes while it is drawn",
    ("fedunlearn/requests/chain.py", "_Life"): "follows a request entry by entry",
    (
        "fedunlearn/certificates/checked_certificate.py",
        "Surroundings",
    ): "reads once what many certificates need",
    ("fedunlearn/certificates/findings.py", "Book"): "reads once what many checks need",
    ("fedunlearn/server/rounds.py", "RoundInProgress"): "grows with a round",
}
"""File and class → why it changes after it was made."""


def dataclasses_of(source: str) -> Iterator[tuple[str, bool]]:
    """Yield every dataclass of a program and whether it is frozen."""
    for node in ast.walk(ast.parse(source)):
        for decorator in node.decorator_list if isinstance(node, ast.ClassDef) else ():
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            if isinstance(called, ast.Name) and called.id == "dataclass":
                keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
                values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in keywords}
                yield node.name, values.get("frozen", False) is True


FILES = [
    path.relative_to(ROOT).as_posix()
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
]


@pytest.mark.parametrize("file", FILES)
def test_every_dataclass_is_frozen_that_does_not_gather(file: str) -> None:
    found = dict(dataclasses_of((ROOT / file).read_text(encoding="utf-8")))
    loose = {name for name, frozen in found.items() if not frozen}
    assert loose == {name for of, name in GATHER if of == file}


def test_the_rule_sees_them() -> None:
    seen = [each for file in FILES for each in dataclasses_of((ROOT / file).read_text(encoding="utf-8"))]
    assert len(seen) > 150
    assert list(
        dataclasses_of("@dataclass(order=True)\nclass A: ...\n@dataclass(frozen=True)\nclass B: ...")
    ) == [
        ("A", False),
        ("B", True),
    ]
