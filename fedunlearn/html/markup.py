"""HTML that cannot forget to escape: plain text is escaped, only :class:`Markup` passes."""

from html import escape

VOID = frozenset({"meta", "br", "hr", "img", "col"})


class Markup(str):
    """Text that is already HTML."""

    __slots__ = ()


def tag(name: str, *children: str | None, **attributes: str | int | bool | None) -> Markup:
    """Return one element; ``class_`` becomes ``class``, ``data_at`` ``data-at``, None is left out.

    >>> tag("p", "a < b", tag("b", "!"), class_="note", title=None)
    '<p class="note">a &lt; b<b>!</b></p>'
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: str | None) -> Markup:
    """Return the children one after the other, escaped where they are plain text."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child or "") for child in children))


def null(reason: str | None) -> Markup:
    """Return what a missing value looks like: a dash that says why when pointed at."""
    return tag("abbr", "–", title=reason or "not measured", class_="null")


def table(head: list[str], body: list[list[str]], *, caption: str | None = None, class_: str = "") -> Markup:
    """Return a table that scrolls sideways on a narrow screen; a cell may itself be a ``<td>``/``<th>``."""

    def cell(content: str, name: str) -> Markup:
        if isinstance(content, Markup) and content.startswith(("<td", "<th")):
            return content
        return tag(name, content)

    rows = [tag("tr", *(cell(content, "td") for content in row)) for row in body]
    inside = tag(
        "table",
        tag("caption", caption) if caption else None,
        tag("thead", tag("tr", *(cell(content, "th") for content in head))),
        tag("tbody", *rows),
        class_=class_ or None,
    )
    return tag("div", inside, class_="scroll", tabindex=0)
