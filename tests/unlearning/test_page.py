"""docs/unlearning.md is what the methods say of themselves."""

from pathlib import Path

from fedunlearn.unlearning import methods
from fedunlearn.unlearning.page import page

PAGE = Path(__file__).parents[2] / "docs" / "unlearning.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == page(), "python -m fedunlearn.unlearning.page docs/unlearning.md"


def test_every_method_says_formula_source_and_deviations():
    sections = page().split("\n## ")[1:]
    assert [section.partition("\n")[0] for section in sections] == list(methods())
    for section in sections:
        for heading in ("**Formula", "**Source", "**Deviations"):
            assert heading in section, (section.partition("\n")[0], heading)
        assert "Defaults: `" in section
