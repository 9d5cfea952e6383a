"""The page of figures: what stands between two markers is written by the benchmark alone."""

from __future__ import annotations

from pathlib import Path

from fedunlearn.errors import UserError

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
BEGIN = "<!-- figures: begin (written by benchmarks/engines.py) -->"
END = "<!-- figures: end -->"


def with_figures(page: str, figures: str) -> str:
    """Return the page with other figures between the markers.

    Raises
    ------
    UserError
        If the page does not hold each marker once, in order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in before + after:
        raise UserError(f"docs/performance.md: must hold {BEGIN!r} and then {END!r}, each once")
    return f"{before}{BEGIN}\n\n{figures.strip()}\n\n{END}{after}"


def write(figures: str, page: Path = PAGE) -> None:
    """Put figures into the page."""
    page.write_text(with_figures(page.read_text(), figures))
