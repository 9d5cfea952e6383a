"""Links of every page lead somewhere, and what docs/notation.md names is in the code."""

import importlib
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(p for folder in (".", "docs", "benchmarks") for p in (ROOT / folder).glob("*.md"))
NOTATION = ROOT / "docs" / "notation.md"
LINK = re.compile(r"\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")


def links(page: Path) -> list[str]:
    """Return where the links of a page lead, but for those to other servers; code is not looked at."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [target for target in LINK.findall(text) if "://" not in target]


def anchors(page: Path) -> set[str]:
    """Return what a page's headings are called in links."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_of_the_docs_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    new = {ROOT / "README.md"}
    while new:
        page = new.pop()
        seen.add(page)
        found = {(page.parent / link.partition("#")[0]).resolve() for link in links(page)}
        new |= {target for target in found if target.suffix == ".md"} - seen
    assert set(PAGES) <= seen


NAMED = re.findall(r"\[`([A-Za-z_.]+)`\]\(\.\./([a-z_/]+)\.py\)", NOTATION.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "path"), NAMED, ids=[name for name, _ in NAMED])
def test_what_the_notation_names_is_there(name: str, path: str) -> None:
    first, _, rest = name.partition(".")
    if rest == "py":
        assert (ROOT / path).with_name(f"{first}.py").is_file()
        return
    found = getattr(importlib.import_module(path.replace("/", ".")), first)
    assert found.__module__ == path.replace("/", "."), f"{name} is defined in {found.__module__}"
    own = {field.name for field in fields(found)} if is_dataclass(found) else set()
    assert not rest or rest in own or hasattr(found, rest) or f"self.{rest} " in read(path)


def read(path: str) -> str:
    return (ROOT / path).with_suffix(".py").read_text(encoding="utf-8")


def test_the_notation_names_a_good_deal() -> None:
    assert len(NAMED) > 25
