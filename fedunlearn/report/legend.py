"""What each line and mark of the charts over rounds means, drawn as the charts draw it."""

from collections.abc import Mapping, Sequence

from fedunlearn.html.markup import Markup, tag
from fedunlearn.html.palette import Look

_SHAPES = {
    "o": '<circle cx="13" cy="7" r="4"/>',
    "s": '<rect x="9.5" y="3.5" width="7" height="7"/>',
    "D": '<path d="M13 2l5 5-5 5-5-5z"/>',
    "^": '<path d="M13 2l5 9H8z"/>',
    "v": '<path d="M13 12l5-9H8z"/>',
    "P": '<path d="M11 2h4v3h3v4h-3v3h-4V9H8V5h3z"/>',
    "X": '<path d="M8.8 5l2-2L13 5.2l2.2-2.2 2 2L15 7l2.2 2-2 2L13 8.8l-2.2 2.2-2-2L11 7z"/>',
    "<": '<path d="M8 7l9-5v10z"/>',
    ">": '<path d="M18 7l-9-5v10z"/>',
    "p": '<path d="M13 2l4.8 3.5-1.8 5.6h-6L8.2 5.5z"/>',
    "h": '<path d="M13 2l4.3 2.5v5L13 12 8.7 9.5v-5z"/>',
    "*": '<path d="M13 1.5l1.3 3.8h4l-3.2 2.4 1.2 3.9L13 9.3l-3.3 2.3 1.2-3.9-3.2-2.4h4z"/>',
    "_": "",
}
"""A matplotlib marker → the same shape in a 26 × 14 box."""
_DASHES = {"-": "", "--": "5 3", "-.": "7 3 2 3", ":": "2 3"}
_INK = "stroke:var(--ink);fill:var(--ink)"
_MARKS = (
    ('<rect width="26" height="14" opacity=".16" stroke="none"/>', "floor around retrain"),
    ('<path d="M13 0V14" stroke-width="1.4"/>', "request"),
    ('<circle cx="13" cy="7" r="5.6" fill="none" stroke-width="1.8"/>', "recovered"),
)


def legend(methods: Sequence[str], looks: Mapping[str, Look]) -> Markup:
    """Return the legend of every chart over rounds."""
    items = [tag("li", key(looks[label]), label) for label in ("original", *methods, "retrain")]
    return tag("ul", *items, *(_item(shape, words, _INK) for shape, words in _MARKS), class_="legend")


def key(look: Look) -> Markup:
    """Return a piece of the line that a label is drawn with, its marker on it, as an SVG of its own."""
    return _key(shapes(look), f"stroke:var(--{look.colour});fill:var(--{look.colour})")


def shapes(look: Look) -> str:
    """Return line and marker as SVG elements in a box of 26 × 14, in the stroke and fill around them."""
    dashes = f' stroke-dasharray="{_DASHES[look.dashes]}"' if _DASHES[look.dashes] else ""
    return f'<path d="M0 7H26" fill="none" stroke-width="2.2"{dashes}/>{_SHAPES[look.marker]}'


def _item(shape: str, words: str, style: str) -> Markup:
    return tag("li", _key(shape, style), words)


def _key(shape: str, style: str) -> Markup:
    return tag("svg", Markup(shape), class_="key", viewBox="0 0 26 14", style=style, aria_hidden="true")
