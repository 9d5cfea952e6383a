"""The page: one well-formed, self-contained file that says what the run's files say."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from fedunlearn.errors import RunError, UserError
from fedunlearn.report.page import write_report
from tests.report.example_rows import NATURAL, PUF
from tests.report.example_run import ExampleRun
from tests.report.parsed_page import Element, parse

SECTIONS = ["verdict", "rounds", "scorecard", "partition", "requests", "costs", "settings"]


def page_of(run: ExampleRun, directory: Path) -> Element:
    return parse(write_report(run.write(directory)).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return write_report(ExampleRun().write(tmp_path_factory.mktemp("runs") / "quickstart-1a2b"))


@pytest.fixture(scope="module")
def page(written) -> Element:
    return parse(written.read_text(encoding="utf-8"))


def test_lies_in_the_run_directory_and_nothing_is_left_beside_it(written):
    assert written.name == "report.html"
    assert sorted(path.suffix for path in written.parent.iterdir()) == [
        ".html",
        *[".json"] * 3,
        ".jsonl",
        ".toml",
    ]


def test_has_every_section_and_a_link_to_each(page):
    assert [section.attributes["id"] for section in page.all("section")] == SECTIONS
    (navigation,) = page.all("nav")
    assert [link.attributes["href"] for link in navigation.all("a")] == [f"#{name}" for name in SECTIONS]
    assert navigation.attributes["aria-label"] == "sections", "what a screen reader calls it"


def test_loads_nothing_from_anywhere(written, page):
    """No address, no script, no style sheet or font to fetch; what is referred to is in the page."""
    text = written.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]|@import|src=", text.replace("//www.w3.org", ""))
    assert not page.all("script") and not page.all("link")
    ids = [element.attributes["id"] for element in page.inside if "id" in element.attributes]
    assert len(ids) == len(set(ids)), "an identifier is there twice"
    links = [e.attributes[key] for e in page.inside for key in ("href", "xlink:href") if key in e.attributes]
    links += [f"#{name}" for name in re.findall(r"url\(#([^)]*)\)", text)]
    assert links
    for link in links:
        assert link.startswith("data:image/png") or link[1:] in ids, link


def test_same_files_give_the_same_bytes(written, tmp_path):
    before = written.read_bytes()
    assert write_report(written.parent).read_bytes() == before


def test_nothing_a_user_wrote_becomes_markup(tmp_path):
    hostile = "<script>alert('x')</script><img src=x onerror=y>\"&$a$"
    run = ExampleRun(name=hostile, toml=f'name = """{hostile}"""\n[data]\nsource = """{hostile}"""\n')
    run.rows = [
        replace(row, label=hostile if row.label == PUF else row.label, reason=hostile) for row in run.rows
    ]
    for branch in run.branches:
        branch["label"] = hostile if branch["label"] == PUF else branch["label"]
        for request in branch["requests"]:
            request["id"] = request["state"] = hostile
    run.counts["1"]["classes"] = [hostile] * 10
    page = page_of(run, tmp_path / "run")
    assert not page.all("script") and not page.all("img")
    assert not [element for element in page.inside if any(key.startswith("on") for key in element.attributes)]
    for section in ("verdict", "rounds", "scorecard", "partition", "requests", "settings"):
        assert hostile in page.all("section", id=section)[0].text, section


def test_a_null_is_a_dash_with_its_reason(page):
    cells = page.all("section", id="scorecard")[0].all("abbr", class_="null")
    assert {cell.text for cell in cells} == {"–"}
    assert "fewer than 20 retained samples: no MIA-SVC" in {cell.attributes["title"] for cell in cells}


def test_every_aggregate_in_the_table_is_the_one_in_the_file(written, page):
    """Value, |gap| ± std and floor of every main measure, read back from the page."""
    card = json.loads((written.parent / "scorecard.json").read_text())
    table = page.all("section", id="scorecard")[0].all("table")[0]
    shown: dict[tuple[str, str, str], str] = {}
    label = ""
    for row in table.all("tr")[1:]:
        heading = row.all("th", scope="rowgroup")
        label = heading[0].text if heading else label
        for cell in row.all("td"):
            if "data-metric" in cell.attributes:
                shown[label, row.all("td")[0].text, cell.attributes["data-metric"]] = cell.text
    names = {"request": "when asked", "unlearned": "just unlearned", "recovered": "once recovered",
             "compare": "at PUF's recovery", "cap": "at the cap"}  # fmt: skip
    expected = {}
    for line in card["aggregates"]:
        for metric in (
            "forget_accuracy",
            "retain_accuracy",
            "test_accuracy",
            "mia_svc",
            "mia_yeom_matched",
            "mia_auc",
        ):
            value, gap, floor = (line[kind][metric] for kind in ("metrics", "abs_gap", "floor"))
            text = f"{value['mean']:.1f}"
            if line["label"] != "retrain":
                within = "✓ " if gap["mean"] <= floor["mean"] else ""
                text += f"{within}|gap| {gap['mean']:.1f} ± {gap['std']:.1f}floor {floor['mean']:.1f}"
            expected[line["label"], names[line["at"]], metric] = text
    assert shown == expected


def test_every_row_is_listed(written, page):
    rows = json.loads((written.parent / "scorecard.json").read_text())["rows"]
    table = page.all("section", id="scorecard")[0].all("table")[3]
    assert len(table.all("tr")) == 1 + len(rows)
    first = table.all("tr")[1].all("td")
    assert [cell.text for cell in first[:4]] == ["when asked", "1", "client 0", "30"]
    assert "2.0 → client 0: 2.00" in table.text


def test_requests_and_costs_are_those_of_the_run(page):
    requests = page.all("section", id="requests")[0].all("tr")[1:]
    assert [requests[0].all("th")[0].text, *(cell.text for cell in requests[0].all("td"))] == [
        PUF, "1", "target-0", "client 0", "30", "31", "34", "forgotten"]  # fmt: skip
    assert "–" in [cell.text for cell in requests[3].all("td")], "natural never recovered on target 1"
    costs = page.all("section", id="costs")[0]
    assert [cell.text for cell in costs.all("tr")[2].all("td")] == [
        "when asked",
        "300",
        "0 B",
        "0 B",
        "24 s",
        "111 %",
    ]
    assert "†" in costs.text


def test_the_settings_are_the_file_to_the_letter(page):
    assert page.all("section", id="settings")[0].all("pre")[0].text == ExampleRun().toml.strip()


def test_a_card_per_method_with_its_gap(written, page):
    card = json.loads((written.parent / "scorecard.json").read_text())
    gaps = {
        line["label"]: f"{line['abs_gap']['forget_accuracy']['mean']:.1f}"
        for line in card["aggregates"]
        if line["at"] == "compare" and line["label"] != "retrain"
    }
    cards = {card.attributes["data-label"]: card for card in page.all("article")}
    assert list(cards) == sorted(gaps, key=lambda label: float(gaps[label])), (
        "the nearest to retraining first"
    )
    for label, gap in gaps.items():
        assert cards[label].all("p", class_="big")[0].text.startswith(f"{gap}points from retraining")
    assert "3 of 3 recovered, after 4.3 rounds" in cards[PUF].text
    assert "2 of 3 recovered, after 1.0 round" in cards[NATURAL].text


@pytest.mark.parametrize(
    ("absent", "sections"),
    [
        ("branches.json", {"requests"}),
        ("metrics.jsonl", set()),
        ("partition.json", {"partition"}),
        ("experiment.toml", {"settings"}),
    ],
)
def test_an_absent_file_takes_its_section_along_and_nothing_else(tmp_path, absent, sections):
    run = ExampleRun(targets=((0,),)).write(tmp_path / "run")
    (run / absent).unlink()
    page = parse(write_report(run).read_text(encoding="utf-8"))
    assert {s.attributes["id"] for s in page.all("section")} == set(SECTIONS) - sections


@pytest.mark.parametrize(
    "absent", [("metrics.jsonl",), ("branches.json",), ("metrics.jsonl", "branches.json")]
)
def test_rounds_that_cannot_be_drawn_say_why(tmp_path, absent):
    run = ExampleRun(targets=((0,),)).write(tmp_path / "run")
    for name in absent:
        (run / name).unlink()
    (section,) = parse(write_report(run).read_text(encoding="utf-8")).all("section", id="rounds")
    verb = "are" if len(absent) > 1 else "is"
    assert section.all("h2")[0].text == "Accuracy over rounds"
    (words,) = section.all("p")
    assert words.text == f"Nothing to draw: {' and '.join(absent)} {verb} not in the run's directory."


def test_rounds_without_a_measurement_say_so(tmp_path):
    run = ExampleRun(targets=((0,),)).write(tmp_path / "run")
    (run / "metrics.jsonl").write_text("")
    (section,) = parse(write_report(run).read_text(encoding="utf-8")).all("section", id="rounds")
    assert (
        section.all("p")[0].text == "Nothing to draw: no accuracy over rounds is in the run's metrics.jsonl."
    )


def test_many_panels_unfold(tmp_path):
    """Six target sets are shown at once; the others are there, folded; nothing is drawn twice."""
    page = page_of(ExampleRun(targets=tuple((k,) for k in range(8))), tmp_path / "run")
    panels = [panel.attributes["data-target"] for panel in page.all("div", class_="panel")]
    assert panels == [str(target) for target in range(8)]
    (folded,) = [d for d in page.all("details") if d.all("summary")[0].text == "2 more"]
    assert [panel.attributes["data-target"] for panel in folded.all("div", class_="panel")] == ["6", "7"]
    assert len([d for d in page.all("details") if d.all("summary")[0].text == "From round 1"]) == 1


def test_a_scorecard_of_nulls_is_still_a_page(tmp_path):
    run = ExampleRun(targets=((0,),))
    run.rows = [
        replace(row, metrics=none, gap=none, floor=none, recovered=None, recovery_rounds=None, scale=None)
        for row in run.rows
        for none in [dict.fromkeys(row.metrics)]
    ]
    page = page_of(run, tmp_path / "run")
    assert page.all("p", class_="verdict unknown")[0].text == "No gap to a retrained model was measured."


def test_an_empty_scorecard_is_still_a_page(tmp_path):
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / "scorecard.json").write_text('{"schema": 1, "experiment": "e", "run": "r", "rows": []}')
    page = parse(write_report(directory).read_text(encoding="utf-8"))
    assert [section.attributes["id"] for section in page.all("section")] == ["verdict", "scorecard"]


def test_unreadable_metrics_are_owned_up_to(tmp_path):
    run = ExampleRun(targets=((0,),)).write(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as log:
        log.write('{"branch": "puf-spe')
    assert "1 unreadable line(s)" in write_report(run).read_text(encoding="utf-8")


def test_a_run_that_has_not_finished_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such run directory$"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"scorecard\.json: not found; the run has not finished .*--resume"):
        write_report(tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "scorecard.json").write_text('{"rows": [')
    with pytest.raises(RunError, match=r"scorecard\.json: is not JSON"):
        write_report(tmp_path)
