"""One chart of a run as a file of its own, for a README or a talk: a standalone SVG, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from xml.etree import ElementTree

from fedunlearn.errors import UserError
from fedunlearn.html.markup import Markup
from fedunlearn.html.palette import Look, css_variables, looks
from fedunlearn.report.legend import shapes
from fedunlearn.report.panels import Panel, panels
from fedunlearn.report.run_files import RunFiles, read_run
from fedunlearn.report.trajectories import trajectory
from fedunlearn.text_files import write_text

MARGIN, LEGEND, GAP = 12.0, 40.0, 14.0


def write_figure(run_dir: Path, path: Path, *, number: int = 0) -> Path:
    """Write the quality-over-rounds charts of one target set, forgotten and test data side by side.

    Parameters
    ----------
    run_dir
        A finished run.
    path
        The SVG file to write.
    number
        Which chart of the report, counted from 0.

    Raises
    ------
    UserError
        If the run has no such chart, or the file cannot be written.
    """
    run = read_run(run_dir)
    charts = panels(run)
    if not 0 <= number < len(charts):
        choice = f"choose 0 to {len(charts) - 1}" if charts else "its branches.json lists no method"
        raise UserError(f"chart {number}: {run_dir} has {len(charts)}; {choice}")
    try:
        write_text(path, _compose(run, charts[number], run_dir.name))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another file") from error
    return path


def _compose(run: RunFiles, panel: Panel, run_name: str) -> str:
    labels = [branch.label for branch in panel.methods]
    style = looks(labels)
    svgs = [trajectory(run, panel, split, style, name=f"figure-{split}") for split in ("forget", "test")]
    body, right, height = side_by_side([svg for svg in svgs if svg is not None], top=LEGEND)
    legend, legend_end = _legend(["original", "retrain", *labels], style)
    width, height = max(right, legend_end) + MARGIN, height + MARGIN
    caveat = run.scores.caveat
    if caveat:
        legend += (
            f'<text x="{MARGIN + 6:g}" y="{height + 8:g}" font-size="12" fill="var(--muted)">'
            f"{escape(caveat)}</text>"
        )
        height += 8 + MARGIN
    return standalone(f"{legend}\n{body}", width, height, title=f"{run_name}: {panel.title}")


def side_by_side(svgs: Sequence[Markup], *, top: float = MARGIN) -> tuple[str, float, float]:
    """Return drawings in a row as one piece of SVG, and how far to the right and down they go, in pixels."""
    placed, x, bottom = [], MARGIN, top
    for svg in svgs:
        root = ElementTree.fromstring(str(svg))
        _, _, w, h = map(float, root.attrib["viewBox"].split())
        root.attrib |= {"x": f"{x:g}", "y": f"{top:g}", "width": f"{w:g}", "height": f"{h:g}"}
        placed.append(ElementTree.tostring(root, encoding="unicode"))
        x, bottom = x + w + GAP, max(bottom, top + h)
    return "\n".join(placed), max(MARGIN, x - GAP), bottom


def standalone(body: str, width: float, height: float, *, title: str) -> str:
    """Return a piece of SVG as a file of its own, which follows the reader's light or dark scheme."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'role="img" aria-label="{escape(title)}">\n<style>{css_variables()}\n'
        "svg{font-family:system-ui,sans-serif}</style>\n"
        f'<rect width="100%" height="100%" rx="8" fill="var(--card)"/>\n'
        f"{body}\n</svg>\n"
    )


def _legend(labels: list[str], style: dict[str, Look]) -> tuple[str, float]:
    """Return the legend and how far to the right it goes."""
    pieces, x = [], MARGIN + 6
    for label in labels:
        look = style[label]
        pieces.append(
            f'<g transform="translate({x:g} 15)" stroke="var(--{look.colour})" fill="var(--{look.colour})">'
            f"{shapes(look)}</g>"
            f'<text x="{x + 32:g}" y="26" font-size="12" fill="var(--ink)">{escape(label)}</text>'
        )
        x += 52 + 7 * len(label)
    return "".join(pieces), x
