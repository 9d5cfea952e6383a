"""Copies that were counted stand in the report, seed by seed, as text; without any there is no such section."""

import pytest

from fedunlearn.report.page import write_report
from tests.report.example_run import ExampleRun
from tests.report.parsed_page import parse

LINE = "forgetting client 0 leaves copies of its images: 3 in the retained data, 1 in the test set"


def page_of(tmp_path, seeds, copies):
    run = ExampleRun(seeds=seeds)
    for seed, lines in copies.items():
        run.counts[str(seed)]["copies"] = lines
    return parse(write_report(run.write(tmp_path / "run")).read_text())


def test_without_copies_nothing_is_said(tmp_path):
    page = page_of(tmp_path, (1, 2), {1: []})
    assert not page.all("section", id="duplicates")
    assert "Copies" not in page.all("nav")[0].text


def test_they_are_listed_under_a_heading_with_what_they_mean(tmp_path):
    page = page_of(tmp_path, (1,), {1: [LINE, "of <b> & c"]})
    (section,) = page.all("section", id="duplicates")
    assert section.all("h2")[0].text == "More than once"
    assert [item.text for item in section.all("li")] == [LINE, "of <b> & c"], "text, no markup"
    assert "A retained copy is still trained on after the forgetting" in section.text
    assert "Copies" in page.all("nav")[0].text


@pytest.mark.slow
def test_of_several_seeds_each_line_says_which(tmp_path):
    page = page_of(tmp_path, (1, 2), {1: [LINE], 2: [LINE]})
    (section,) = page.all("section", id="duplicates")
    assert [item.text for item in section.all("li")] == [f"seed 1: {LINE}", f"seed 2: {LINE}"]
