"""matplotlib figure → inline SVG: small, themable, no colliding identifiers, nothing loaded from anywhere."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedunlearn.html.markup import Markup
from fedunlearn.html.palette import STAND_INS

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: selectable, searchable, and in the page's own font
    "text.parse_math": False,  # a label may contain a dollar sign
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": STAND_INS["grid"],
    "axes.labelcolor": STAND_INS["muted"],
    "axes.titlecolor": STAND_INS["ink"],
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlepad": 9,
    "grid.color": STAND_INS["grid"],
    "grid.linewidth": 0.8,
    "xtick.color": STAND_INS["muted"],
    "ytick.color": STAND_INS["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.color": STAND_INS["ink"],
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
}
_COLOUR = re.compile("|".join(STAND_INS.values()))
_VARIABLES = {stand_in: f"var(--{name})" for name, stand_in in STAND_INS.items()}
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


@dataclass
class Drawing:
    """A figure being drawn, with notes: what a marked artist is, and the words shown when it is pointed at."""

    name: str
    """Unique on the page: the prefix of every identifier."""
    title: str
    """What a screen reader says in the figure's place."""
    width: float
    height: float
    figure: Figure = field(init=False)
    axes: Axes = field(init=False)
    _notes: dict[str, tuple[str, str]] = field(default_factory=dict)

    def note(self, artist: Artist, mark: str, words: str) -> None:
        """Mark an artist: ``data-mark`` in the SVG, and a tooltip."""
        key = f"note{len(self._notes)}"
        artist.set_gid(key)
        self._notes[key] = (mark, words)


@contextmanager
def drawing(name: str, title: str, width: float = 4.4, height: float = 2.7) -> Iterator[Drawing]:
    """Yield an empty :class:`Drawing`, ``width`` × ``height`` inches, under the report's settings."""
    with matplotlib.rc_context(_SETTINGS):
        drawn = Drawing(name, title, width, height)
        drawn.figure = Figure(figsize=(width, height), layout="constrained")
        drawn.axes = drawn.figure.add_subplot()
        yield drawn


def inline(drawn: Drawing) -> Markup:
    """Return the drawing as one ``<svg>`` element; call it inside the ``with`` of :func:`drawing`."""
    buffer = io.StringIO()
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": drawn.name}):
        drawn.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    _drop_unwanted(root)
    used = {name for element in root.iter() for name in _references(element)}
    for element in root.iter():
        _rewrite(element, used, drawn)
    root.attrib = {
        "class": "plot",
        "role": "img",
        "aria-label": drawn.title,
        "data-plot": drawn.name,
        "viewBox": root.attrib["viewBox"],
    }
    return Markup(ElementTree.tostring(root, encoding="unicode", short_empty_elements=True))


def _drop_unwanted(root: ElementTree.Element) -> None:
    """Drop metadata and style: the first names addresses, the second would apply to the whole page."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)


def _references(element: ElementTree.Element) -> list[str]:
    links = [
        value[1:] for key, value in element.attrib.items() if key.endswith("href") and value.startswith("#")
    ]
    return links + [name for value in element.attrib.values() for name in _REFERENCE.findall(value)]


def _rewrite(element: ElementTree.Element, used: set[str], drawn: Drawing) -> None:
    """Strip namespaces and unused ids, prefix used ids; stand-ins become variables, notes tooltips."""
    element.tag = element.tag.rpartition("}")[2]
    element.tail = None
    if element.text and not element.text.strip():
        element.text = None
    attributes = {}
    for qualified, value in element.attrib.items():
        key = qualified.rpartition("}")[2]
        text = _COLOUR.sub(lambda found: _VARIABLES[found.group()], value)
        text = _REFERENCE.sub(lambda found: f"url(#{drawn.name}-{found.group(1)})", text)
        if key == "id" and value in drawn._notes:
            mark, words = drawn._notes[value]
            attributes["data-mark"] = mark
            tooltip = ElementTree.Element("title")
            tooltip.text = words
            element.insert(0, tooltip)
            if value not in used:
                continue
        if key == "id":
            if value not in used:
                continue
            text = f"{drawn.name}-{value}"
        elif key == "href" and value.startswith("#"):
            text = f"#{drawn.name}-{value[1:]}"
        elif key == "style":
            text = re.sub(r" ?font-family:[^;]*;?", "", text)
        attributes[key] = " ".join(text.split())
    element.attrib = attributes
