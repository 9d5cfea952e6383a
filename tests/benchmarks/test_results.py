"""What was measured is kept second by second, reads again, and fills tables and the page of figures."""

import pytest

from benchmarks import docs, tables
from benchmarks.engines import save
from benchmarks.goals import GOALS, verdict
from benchmarks.machine import machine
from benchmarks.results import Check, Result, Results
from fedunlearn.errors import UserError


@pytest.fixture
def results():
    found = Results(machine())
    found.put(
        [
            Result("mlp-100", "bare", 1, turns=[1.0, 2.0, 1.0], turns_difference=0.0, serialised=0),
            Result(
                *("mlp-100", "local", 1),
                turns=[1.5, 3.0, 1.5],
                turns_difference=2e-7,
                blocks=[[1.4], [1.6]],
                first_round=[2.0, 2.2],
                peak_memory=[400_000_000, 500_000_000],
                serialised=0,
            ),
            Result("mlp-100", "ray", 1, missing="no Ray | here\nand a traceback"),
            Result("mlp-100", "bare", 2, blocks=[[1.0]]),
            Result("mlp-100", "flower", 2, blocks=[[30.0]], blocks_difference=3e-6, serialised=4_200_000),
        ]
    )
    found.checks = [Check("killed", "same weights", "same bits", True)]
    found.cases["mlp-100"] = {"num_clients": 100}
    return found


def test_the_file_holds_every_second_and_what_follows_from_it(results):
    content = results.to_dict()
    assert content["schema"] == 1
    assert content["finished"] == []
    local = content["results"][1]
    assert local["turns"] == [1.5, 3.0, 1.5]
    assert (local["median"], local["quartiles"], local["n"]) == (1.5, (1.5, 2.25), 3)
    assert local["over_bare"] == {"value": 1.5, "low": 1.5, "high": 1.5, "n": 3}
    assert content["results"][2]["over_bare"] is None
    assert content["results"][4]["over_bare"]["value"] == 30.0


def test_a_file_is_read_as_it_was_written(results, tmp_path):
    path = tmp_path / "new" / "engines.json"
    save(results, path)
    assert Results.read(path).to_dict() == results.to_dict()


@pytest.mark.parametrize("text", ["{", "{}", '{"schema": 2}'])
def test_a_file_of_something_else_is_named(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"x.json: "):
        Results.read(path)


def test_a_table_has_a_line_per_row_and_names_a_case_once(results):
    lines = tables.result_cells(results, 1)
    assert [line[0] for line in lines] == ["mlp × 100 × 32", "", ""]
    local = dict(zip(tables.HEADINGS, lines[1], strict=True))
    assert (local["row"], local["s / round"], local["over bare"]) == ("local, 1 × 1", "1.5", "1.5")
    assert (local["start, s"], local["memory, MB"], local["difference"]) == ("2.1", "450", "2e-07")
    assert lines[2][2] == "n/a: no Ray | here"


def test_markdown_has_a_cell_under_every_heading(results):
    text = tables.document(results, [verdict(goal, results) for goal in GOALS], "the command")
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 3, "goals, 1 thread, 2 threads"
    for block in blocks:
        assert len({line.replace("\\|", "").count("|") for line in block}) == 1
    assert "local over bare loop, mlp × 100 | 1.5 | 1.5–1.5 | ≤ 1.2 | ✗ | local / bare |" in text
    assert "| killed | same bits |  | same weights | ✓ |  |" in text
    assert str(results.machine["torch"]) in text
    assert "By `the command`. The run was cut short" in text


def test_figures_replace_figures_and_nothing_else():
    page = f"before\n{docs.BEGIN}\nold\n{docs.END}\nafter\n"
    once = docs.with_figures(page, "new | table")
    assert once == f"before\n{docs.BEGIN}\n\nnew | table\n\n{docs.END}\nafter\n"
    assert docs.with_figures(once, "new | table") == once


@pytest.mark.parametrize("page", ["", docs.BEGIN, f"{docs.END}{docs.BEGIN}", f"{docs.BEGIN}{docs.END}" * 2])
def test_a_page_without_its_markers_is_left_alone(page):
    with pytest.raises(UserError, match="each once"):
        docs.with_figures(page, "figures")


def test_the_page_has_its_markers():
    text = docs.PAGE.read_text()
    assert docs.with_figures(text, "x") != text
