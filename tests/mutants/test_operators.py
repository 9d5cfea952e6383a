"""Mutants: every kind is found where it can be made, changes what it says, and nothing that no test could notice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.operators import mutants_of


def changed(source: str) -> set[str]:
    return {mutant.applied_to(source) for mutant in mutants_of(source)}


@pytest.mark.parametrize(
    ("source", "after"),
    [
        ("a <= b", "a < b"),
        ("a is not b", "a is b"),
        ("a not  in b", "a in b"),
        ("(a) == (b)", "(a) != (b)"),
        ("0 < a < b", "0 < a <= b"),
        ("a - b", "a + b"),
        ("a // (b)", "a * (b)"),
        ("a += b", "a -= b"),
        ("a and b or c", "a or b or c"),
        ("not a", "bool(a)"),
        ("-a", "a"),
        ("x = 1 if a else b", "x = 1 if (not (a)) else b"),
        ("if a:\n    b = c", "if (not (a)):\n    b = c"),
        ("x = True", "x = False"),
        ("x = 3", "x = 4"),
        ("x = 'é' + b", "x = 'é!' + b"),
        ("def f():\n    return a", "def f():\n    return None"),
        ("f(a)", "pass"),
        ("for a in b:\n    break", "for a in b:\n    continue"),
        ("x = min(a)", "x = max(a)"),
        ("x = f(a=1, b=c)", "x = f( b=c)"),
        ("class A:\n    x: Annotated[int, above(3)] = a", "class A:\n    x: Annotated[int, above(4)] = a"),
        ("x = (a\n     # of both\n     and b)", "x = (a\n     # of both\n     or b)"),
        ("é = a == b", "é = a != b"),
    ],
)
def test_a_change_is_made(source: str, after: str) -> None:
    assert after in changed(source)


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring of 3 words."""',
        'def f(a: int = b) -> Literal["a"]:\n    """More."""',
        "class A:\n    x: Literal['a']",
        'log(INFO, "round %d", a)',
        "from a import b",
        "def f():\n    return None",
        "x = f(help='words')",
    ],
)
def test_what_no_test_could_notice_stays(source: str) -> None:
    assert changed(source) == set()


def test_every_mutant_differs_and_is_a_program() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    found = mutants_of(source)
    assert len(found) > 50
    assert all(mutant.applied_to(source) != source for mutant in found)
