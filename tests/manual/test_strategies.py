"""docs/strategies.md is what the strategies say of themselves."""

import re
from pathlib import Path

import pytest

from fedunlearn import plugins
from fedunlearn.config.components import keys_of
from fedunlearn.manual.strategies import page
from fedunlearn.server.history import Keeps
from fedunlearn.server.round import Needs
from fedunlearn.strategies.puf import PUF, PUFSettings

PAGE = Path(__file__).parents[2] / "docs" / "strategies.md"
NAMES = tuple(plugins.KINDS["strategies"].built_in)


def sections() -> dict[str, str]:
    """Return the section of each strategy."""
    found = (section.partition("\n") for section in page().split("\n## ")[1:])
    return {name: text for name, _, text in found}


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m fedunlearn.manual"


def test_every_strategy_has_a_section_and_a_line_of_the_table() -> None:
    assert tuple(sections()) == NAMES
    assert tuple(re.findall(r"^\| \[`([a-z-]+)`\]", page(), re.MULTILINE)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_section_says_source_formula_and_deviations_and_every_key(name: str) -> None:
    section = sections()[name]
    assert "**Formula.**" in section
    assert "**Paper:**" in section or "**Source:**" in section
    if ("strategies", name) in plugins.HIDDEN:
        return
    assert "**Deviations" in section
    for key in keys_of(plugins.settings_type("strategies", name)):
        assert f"`{key} =" in section or f"`{key}` (" in section, key


def test_choices_bounds_and_words_of_a_certificate_are_on_the_page() -> None:
    section = sections()["puf"]
    assert '`mode = "special"` (or "regular"), `scale = 2` (>= 0), `retain-rate = 1` (>= 0).' in section
    assert f"with its defaults: “The federation forgets by {PUF.describe(PUFSettings())}.”" in section
    assert "`routine` (required), `settings` (a table: " in sections()["local-routine"]


def test_the_table_says_who_removes_influence_and_who_must_be_online() -> None:
    lines = {m[1]: m[0] for m in re.finditer(r"^\| \[`([a-z-]+)`\].*$", page(), re.MULTILINE)}
    assert lines["puf"].endswith("| yes | online |")
    assert lines["not"].endswith("| yes | – |")
    assert lines["natural"].endswith("| no | – |")


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        (Needs(individual=True), "online, single updates"),
        (Needs(online=False, keeps=Keeps(which="last")), "history (last updates)"),
        (Needs(keeps=Keeps(models=True)), "online, history (all updates and global weights)"),
    ],
)
def test_a_strategy_that_needs_something_else_changes_the_page(
    monkeypatch: pytest.MonkeyPatch, needs: Needs, words: str
) -> None:
    monkeypatch.setattr(PUF, "needs", classmethod(lambda cls, settings: needs))
    assert f"for any number of clients at once | yes | {words} |" in page()
