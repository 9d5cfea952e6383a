"""Every cell, heading and word of the tables, each as a whole: kept as text in ``tests/report/tables``.

Whoever means to change them writes them anew, ``python -m tests.report.test_tables_whole``, and reads the difference.
"""

import io
from collections.abc import Mapping
from difflib import unified_diff
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from fedunlearn.report.tables import centralised_tables, comparison_table, markdown, scorecard_table
from tests.report.example_run import ExampleRun
from tests.report.example_segmentation import SegmentationRun

TABLES = Path(__file__).with_name("tables")
Card = Mapping[str, Any]


def drawn(table: RenderableType) -> str:
    """Return a table as the terminal shows it, with its styles: bold, dim and colours."""
    output = io.StringIO()
    console = Console(width=100, file=output, force_terminal=True, color_system="standard", no_color=False)
    console.print(table)
    return output.getvalue().replace("\x1b[", "␛[")


def shown() -> dict[str, str]:
    """Return every table by the name of the file in which it is kept."""
    quick = ExampleRun(seeds=(1, 2)).card("quick")
    timeline = ExampleRun(name="timeline", targets=((0,), (2, 3), (5,)), timeline=(20, 22, 30)).card(
        "timeline"
    )
    prostate = SegmentationRun().card("prostate")
    return {
        "scorecard": drawn(scorecard_table(quick)),
        "scorecard-timeline": drawn(scorecard_table(timeline)),
        "scorecard-segmentation": drawn(scorecard_table(prostate)),
        "compared": drawn(comparison_table([quick, {**timeline, "smoke": True, "origin": "phantom"}])),
        "compared-tasks": drawn(comparison_table([quick, prostate])),
        "centralised": drawn(centralised_tables([quick])),
        "markdown": markdown(quick),
        "markdown-segmentation": markdown(prostate),
    }


def kept() -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8") for path in TABLES.glob("*.txt")}


@pytest.fixture(scope="module")
def tables() -> dict[str, str]:
    return shown()


@pytest.mark.parametrize("name", sorted(kept()))
def test_a_table_is_as_agreed(tables: dict[str, str], name: str) -> None:
    assert not list(unified_diff(kept()[name].splitlines(), tables[name].splitlines(), "kept", "shown"))


def test_every_table_is_kept(tables: dict[str, str]) -> None:
    assert tables.keys() == kept().keys()


if __name__ == "__main__":
    TABLES.mkdir(exist_ok=True)
    for each, text in shown().items():
        (TABLES / f"{each}.txt").write_text(text, encoding="utf-8")
