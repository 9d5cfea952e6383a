"""The page of figures: what stands between two markers is written by the benchmark alone."""

from __future__ import annotations

from pathlib import Path

from fedunlearn.errors import UserError

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
BEGIN = "<!-- figures: begin (written by benchmarks/engines.py) -->"
END = "<!-- figures: end -->"


def with_figures(
    page: str, figures: str, *, begin: str = BEGIN, page_name: str = "docs/performance.md"
) -> str:
    """Return the page with other figures between the markers.

    Raises
    ------
    UserError
        If the page does not hold each marker once, in order.
    """
    before, found, rest = page.partition(begin)
    _, end, after = rest.partition(END)
    if not found or not end or begin in rest or END in before + after:
        raise UserError(f"{page_name}: must hold {begin!r} and then {END!r}, each once")
    return f"{before}{begin}\n\n{figures.strip()}\n\n{END}{after}"


def write(figures: str, page: Path = PAGE) -> None:
    """Put figures into the page."""
    page.write_text(with_figures(page.read_text(encoding="utf-8"), figures), encoding="utf-8")
