"""Docstrings and settings as Markdown."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pytest

from fedunlearn.config.components import SettingsOf
from fedunlearn.config.conditions import Count, Fraction, NonNegative, Rate, above
from fedunlearn.config.settings import NoSettings, Settings
from fedunlearn.manual.components import row, settings_of, text_of


@dataclass(frozen=True)
class Sown(Settings):
    depth: Rate = 0.5
    rows: Count = 3
    share: Fraction | None = None
    kind: Literal["oats", "rye"] = "rye"
    beds: tuple[str, ...] = ("a", "b")
    wet: bool = False
    by_hand: Annotated[float, above(1)] = 2.5


@dataclass(frozen=True, kw_only=True)
class Chosen(Settings):
    routine: str
    strength: NonNegative = 1.0
    settings: Annotated[Any, SettingsOf("routines", "routine", beside=False)] = None


def test_settings_say_default_choices_and_bounds_but_no_absurd_ones() -> None:
    assert settings_of(Sown) == (
        "`depth = 0.5` (> 0), `rows = 3` (>= 1), `share = none` (>= 0 and <= 1), "
        '`kind = "rye"` (or "oats"), `beds = ["a", "b"]`, `wet = false`, `by-hand = 2.5` (> 1)'
    )


def test_what_has_no_default_is_required_and_a_component_s_keys_are_its_own() -> None:
    assert settings_of(Chosen) == (
        "`routine` (required), `strength = 1` (>= 0), `settings` (a table: those of what `routine` names)"
    )
    assert settings_of(NoSettings) == "none"


@pytest.mark.parametrize(
    ("docstring", "text"),
    [
        ("See :class:`~some.module.Thing` and ``this``.", "See `some.module.Thing` and `this`."),
        (
            "One.\n\nFormula. Such as\n\n    w = 1\n\nDeviations: none.",
            "One.\n\n**Formula.** Such as\n\n```\nw = 1\n```\n\n**Deviations:** none.",
        ),
        (
            "One.\n\nDeviations and choices of ours: some.",
            "One.\n\n**Deviations and choices of ours:** some.",
        ),
    ],
)
def test_a_docstring_becomes_markdown(docstring: str, text: str) -> None:
    assert text_of(SimpleNamespace(__doc__=docstring)) == text


def test_a_row_of_a_table() -> None:
    assert row(["a", "b"]) == "| a | b |"
