"""Colours by what they mean, for both colour schemes, told apart by the colour-blind.

A figure is drawn in *stand-in* colours; :mod:`fedunlearn.html.svg` replaces each by a CSS variable, so
that one inline SVG follows the reader's light or dark scheme. Methods also differ by marker, never by colour
alone; where there are more of them than colours, by dashes as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

SCHEMES: dict[str, tuple[str, str]] = {
    "bg": ("#f4f6f8", "#11161c"),
    "card": ("#ffffff", "#1a2129"),
    "ink": ("#17222d", "#e6ecf2"),
    "muted": ("#5a6875", "#9aa8b5"),
    "grid": ("#e3e8ed", "#2c3640"),
    "original": ("#7b8894", "#93a1ae"),
    "retrain": ("#17222d", "#f2f5f8"),
    "natural": ("#b37003", "#f0a83c"),
    "method0": ("#0042d2", "#06aeff"),
    "method1": ("#6e127f", "#d13fc0"),
    "method2": ("#137140", "#6ad394"),
    "method3": ("#a063cf", "#8761ff"),
    "method4": ("#810303", "#ff5c5c"),
    "good": ("#00714f", "#4fd6a6"),
    "fair": ("#935600", "#f2b04e"),
    "poor": ("#b3261e", "#ff938a"),
}
"""Name → (light, dark). The CSS variable is ``--name``.

The lines' colours were searched for the greatest least distance in CIELAB under normal, protan and deutan vision
(it is ≥ 23 between any two), at a contrast of at least 3 to the card.
"""

STAND_INS: dict[str, str] = {name: f"#0a0b{place:02x}" for place, name in enumerate(SCHEMES)}
"""Name → the colour it is drawn in until the CSS variable takes its place."""

HEAT = "#2f7fc1"
"""The heat map's one hue; its cells are transparent in proportion, so it suits either background."""

METHOD_COLOURS = sum(name.startswith("method") for name in SCHEMES)
_MARKERS = ("o", "D", "^", "v", "P", "X", "<", ">", "p", "h", "*")
"""Their number and that of the colours have no common divisor: the first 55 methods are pairs of their own."""
_DASHES = ("-", "-.", ":")


@dataclass(frozen=True)
class Look:
    """How one label is drawn: a colour name of :data:`SCHEMES`, a matplotlib marker, a dash pattern."""

    colour: str
    marker: str
    dashes: str = "-"

    @property
    def ink(self) -> str:
        """The stand-in colour to draw with."""
        return STAND_INS[self.colour]


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """Return the look of every method and of the two references; one label looks the same in every chart."""
    chosen = {"original": Look("original", "s"), "retrain": Look("retrain", "_", "--")}
    free = 0
    for label in dict.fromkeys(methods):
        if label in chosen:
            continue
        if label == "natural":
            chosen[label] = Look("natural", "s")
            continue
        place, lap = free % METHOD_COLOURS, free // METHOD_COLOURS
        chosen[label] = Look(f"method{place}", _MARKERS[free % len(_MARKERS)], _DASHES[lap % len(_DASHES)])
        free += 1
    return chosen


def css_variables() -> str:
    """Return the CSS that defines every colour, for light and for dark."""
    light, dark = (
        "".join(f"--{name}:{pair[scheme]};" for name, pair in SCHEMES.items()) for scheme in (0, 1)
    )
    return (
        f":root{{color-scheme:light dark;{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
        f"@media print{{:root{{{light}}}}}"
    )
