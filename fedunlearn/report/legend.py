"""What each line and mark of the charts over rounds means, drawn as the charts draw it."""

from collections.abc import Mapping, Sequence

from fedunlearn.report.markup import Markup, tag
from fedunlearn.report.palette import Look

_SHAPES = {
    "o": '<circle cx="13" cy="7" r="4"/>',
    "s": '<rect x="9.5" y="3.5" width="7" height="7"/>',
    "D": '<path d="M13 2l5 5-5 5-5-5z"/>',
    "^": '<path d="M13 2l5 9H8z"/>',
    "v": '<path d="M13 12l5-9H8z"/>',
    "P": '<path d="M11 2h4v3h3v4h-3v3h-4V9H8V5h3z"/>',
    "_": "",
}
"""A matplotlib marker → the same shape in a 26 × 14 box."""
_DASHES = {"-": "", "--": ' stroke-dasharray="5 3"', "-.": ' stroke-dasharray="7 3 2 3"'}
_INK = "stroke:var(--ink);fill:var(--ink)"
_MARKS = (
    ('<rect width="26" height="14" opacity=".16" stroke="none"/>', "floor around retrain"),
    ('<path d="M13 0V14" stroke-width="1.4"/>', "request"),
    ('<circle cx="13" cy="7" r="5.6" fill="none" stroke-width="1.8"/>', "recovered"),
)


def legend(methods: Sequence[str], looks: Mapping[str, Look]) -> Markup:
    """Return the legend of every chart over rounds."""
    items = []
    for label in ("original", *methods, "retrain"):
        look = looks[label]
        line = (
            f'<path d="M0 7H26" fill="none" stroke-width="2.2"{_DASHES[look.dashes]}/>{_SHAPES[look.marker]}'
        )
        items.append(_item(line, label, f"stroke:var(--{look.colour});fill:var(--{look.colour})"))
    return tag("ul", *items, *(_item(shape, words, _INK) for shape, words in _MARKS), class_="legend")


def _item(shape: str, words: str, style: str) -> Markup:
    key = tag("svg", Markup(shape), class_="key", viewBox="0 0 26 14", style=style, aria_hidden="true")
    return tag("li", key, words)
