"""A strict reader of HTML: every element closed in order, and what a test wants to know of each."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "img", "col", "link", "input"}


@dataclass
class Element:
    """One element: attributes, the text in it and below, and its descendants."""

    tag: str
    attributes: dict[str, str]
    text: str = ""
    inside: list["Element"] = field(default_factory=list)

    def all(self, tag: str, **attributes: str) -> list["Element"]:
        """Return the descendants with this tag and these attributes (``data_x`` for ``data-x``)."""
        wanted = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
        return [e for e in self.inside if e.tag == tag and wanted.items() <= e.attributes.items()]

    def starting(self, attribute: str, start: str) -> list["Element"]:
        """Return the descendants whose attribute begins so."""
        return [e for e in self.inside if e.attributes.get(attribute, "").startswith(start)]


class _Strict(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert re.fullmatch("[a-z][a-z0-9]*", tag), f"<{tag}> is no element"
        element = Element(tag, {key: value or "" for key, value in attrs})
        assert len(element.attributes) == len(attrs), f"<{tag}> repeats an attribute: {attrs}"
        for parent in self.open:
            parent.inside.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for parent in self.open:
            parent.text += data


def parse(page: str) -> Element:
    """Return the page's tree; AssertionError where it is not well formed."""
    reader = _Strict()
    reader.feed(page)
    reader.close()
    assert reader.open == [reader.root], f"never closed: {[element.tag for element in reader.open[1:]]}"
    return reader.root
