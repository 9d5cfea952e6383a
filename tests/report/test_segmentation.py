"""A segmentation run as page, tables and figure show it: Dice everywhere, and where the data are from."""

import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from fedunlearn.errors import RunError
from fedunlearn.report.figure import write_figure
from fedunlearn.report.page import write_report
from fedunlearn.report.run_files import read_run, with_setting
from fedunlearn.report.scores import Scores
from fedunlearn.report.tables import comparison_table, markdown, scorecard_table
from fedunlearn.report.verdict import cautions, evidence, findings, headline
from tests.report.cards import row as row_of
from tests.report.cards import scores as scores_of
from tests.report.example_rows import CAP, NATURAL, PUF
from tests.report.example_run import ROUNDS, ExampleRun
from tests.report.example_segmentation import SITES, SLICES, SegmentationRun
from tests.report.parsed_page import Element, parse
from tests.report.test_charts import chart, marks, points
from tests.report.test_tables import aggregate, cells

WORDS = "Phantom data: synthetic, not patients."


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    return SegmentationRun().write(tmp_path_factory.mktemp("runs") / "prostate-12345678")


@pytest.fixture(scope="module")
def page(directory) -> Element:
    return parse(write_report(directory).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def card(directory) -> dict:
    return with_setting(json.loads((directory / "scorecard.json").read_text()), directory)


def rendered(table, width: int = 100) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return console.file.getvalue().splitlines()


# -- the page -------------------------------------------------------------------------------------------------


def test_nothing_on_the_page_speaks_of_accuracy(page):
    """Not in the text, nor in what is shown or said when something is pointed at."""
    told = [page.text, *(value for e in page.inside for value in e.attributes.values())]
    assert not [words for words in told if "accuracy" in words.lower()]
    assert "Dice over rounds" in page.text and "points away" in page.text


def test_the_page_begins_with_where_the_data_are_from(page):
    (header,) = page.all("header")
    assert header.all("p")[0].text == WORDS
    assert header.text.index(WORDS) < header.text.index("prostate-mri")


@pytest.mark.parametrize("origin", ["", "synthetic"])
def test_real_data_need_no_word_and_made_images_one(tmp_path, origin):
    run = SegmentationRun(targets=((0,),), origin=origin).write(tmp_path / "run")
    (header,) = parse(write_report(run).read_text()).all("header")
    stated = [p.text for p in header.all("p", class_="caveat")]
    assert stated == (["Synthetic data: made by a program, not real images."] if origin else [])


def test_curves_are_the_logged_dice(directory, page):
    metrics = read_run(directory).metrics
    (curve,) = marks(chart(page, "rounds-1-test"), f"curve {PUF}")
    series = metrics.series(f"{PUF}-1-s1", "test", "dice")
    drawn = points(curve)
    assert len(drawn) == len(series) + 1 == CAP + 1, "and the original's point before them"
    fit = np.polyfit(series.values, drawn[1:, 1], 1)
    assert np.abs(np.polyval(fit, series.values) - drawn[1:, 1]).max() < 1e-3
    start = next(
        row["metrics"]["forget_dice"]
        for row in read_run(directory).scores.rows_at("original", "request")
        if row["target"] == 1
    )
    (forgotten,) = marks(chart(page, "rounds-1-forget"), f"curve {PUF}")
    series = metrics.series(f"{PUF}-1-s1", "forget", "dice")
    fit = np.polyfit(series.values, points(forgotten)[1:, 1], 1)
    assert points(forgotten)[0, 1] == pytest.approx(np.polyval(fit, start), abs=1e-2)
    for split in ("forget", "test"):
        assert "Dice, %" in [text.text.strip() for text in chart(page, f"rounds-1-{split}").all("text")]


def test_gaps_are_drawn_in_their_units(directory, page):
    plots = [
        svg.attributes["data-plot"] for svg in page.all("section", id="verdict")[0].all("svg", class_="plot")
    ]
    assert plots == ["gap-forget_dice", "gap-test_dice", "gap-forget_hausdorff", "gap-mia_svc"]
    scores = read_run(directory).scores
    for metric, unit in (("forget_dice", "points"), ("forget_hausdorff", "mm")):
        svg = chart(page, f"gap-{metric}")
        assert f"gap to retraining, {unit}" in [text.text.strip() for text in svg.all("text")]
        gaps = [row["gap"][metric] for row in scores.rows_at(PUF, "compare")]
        dots = marks(svg, f"gap {PUF} compare")
        places = [float(dot.all("use")[0].attributes["x"]) for dot in dots]
        assert np.corrcoef(gaps, places)[0, 1] == pytest.approx(1)
        assert all(dot.all("title")[0].text.endswith(unit) for dot in dots)


def test_without_distances_there_is_no_plot_of_them(tmp_path):
    run = SegmentationRun(targets=((0,),))
    for row in run.rows:
        for values in (row.metrics, row.gap, row.floor):
            values["forget_hausdorff"] = None
    page = parse(write_report(run.write(tmp_path / "run")).read_text())
    plots = [
        svg.attributes["data-plot"] for svg in page.all("section", id="verdict")[0].all("svg", class_="plot")
    ]
    assert plots == ["gap-forget_dice", "gap-test_dice", "gap-mia_svc"]


def test_the_first_table_has_dice_and_distances_and_the_file_s_numbers(page, card):
    table = page.all("section", id="scorecard")[0].all("table")[0]
    columns = [
        "forget_dice",
        "retain_dice",
        "test_dice",
        "forget_hausdorff",
        "test_hausdorff",
        "test_missed",
        "mia_svc",
    ]
    shown = [cell for cell in table.all("td") if "data-metric" in cell.attributes]
    assert [cell.attributes["data-metric"] for cell in shown[:7]] == columns
    first = aggregate(card, "original", "request")
    for cell, metric in zip(shown[:7], columns, strict=True):
        value, gap, floor = (first[kind][metric]["mean"] for kind in ("metrics", "abs_gap", "floor"))
        assert cell.text.startswith(f"{value:.1f}")
        assert f"|gap| {gap:.1f}" in cell.text and f"floor {floor:.1f}" in cell.text


def test_a_card_tells_dice_distance_and_missed_slices(page, card):
    (found,) = page.all("article", data_label=PUF)
    facts = dict(zip(*([e.text for e in found.all(tag)] for tag in ("dt", "dd")), strict=True))
    line, retrain = aggregate(card, PUF, "compare"), aggregate(card, "retrain", "compare")
    gap, floor = (line[kind]["test_dice"]["mean"] for kind in ("abs_gap", "floor"))
    assert facts["test Dice"] == f"{gap:.1f} points away, floor {floor:.1f}"
    gap, floor = (line[kind]["test_hausdorff"]["mean"] for kind in ("abs_gap", "floor"))
    assert facts["test Hausdorff"] == f"{gap:.1f} mm away, floor {floor:.1f}"
    missed, retrained = (a["metrics"]["test_missed"]["mean"] for a in (line, retrain))
    assert facts["missed test slices"] == f"{missed:.1f} %, retrained {retrained:.1f}"


def test_sites_stand_by_name_beside_their_slices(page):
    svg = chart(page, "partition-1")
    written = [text.text.strip() for text in svg.all("text")]
    names = [text for text in written if text in SITES]
    assert names == list(SITES)
    assert {str(count) for count in SLICES} | {"slices"} <= set(written)
    assert "class" not in written
    framed = {mark.attributes["data-mark"]: mark.all("title")[0].text for mark in marks(svg, "forgotten")}
    assert framed == {
        f"forgotten {k}": f"client {k} ({SITES[k]}) is forgotten: {SLICES[k]} slices" for k in (0, 2, 5)
    }
    section = page.all("section", id="partition")[0].text
    assert "6 clients hold 1,111 slices: 94 to 280 (median 193) each" in section
    assert "classes" not in section


def test_sites_are_named_where_they_are_forgotten(page):
    titles = [
        panel.all("h3")[0].text for panel in page.all("section", id="rounds")[0].all("div", class_="panel")
    ]
    assert titles == ["Forget client 0 (BIDMC)", "Forget client 2 (I2CVB)", "Forget client 5 (UCL)"]
    assert "client 2 (I2CVB)" in page.all("section", id="requests")[0].text
    assert "client 2 (I2CVB)" in page.all("section", id="scorecard")[0].all("table")[2].text


def test_what_was_left_out_of_the_data_is_listed(tmp_path):
    run = SegmentationRun(seeds=(1, 2), targets=((0,),))
    for held in run.counts.values():
        held["notes"] = ["UCL/Case07.nii.gz: has an empty mask; skipped"]
    page = parse(write_report(run.write(tmp_path / "run")).read_text())
    listed = [item.text for item in page.all("section", id="partition")[0].all("li")]
    assert listed == ["UCL/Case07.nii.gz: has an empty mask; skipped"], "once, though two seeds say it"


# -- sentences ------------------------------------------------------------------------------------------------


def one_metric(metric: str, task: str | None, gap: float) -> Scores:
    """Return a scorecard whose one method is so far from retraining, with a floor of 2 and 20 to forget."""

    rows = [row_of("original", "request", 20.0, metric=metric), row_of("puf", "compare", gap, metric=metric)]
    return scores_of(*rows, **({"task": task} if task else {}))


@pytest.mark.parametrize("gap", [1.5, 5.0, 30.0])
def test_the_same_numbers_give_the_same_verdict_in_the_task_s_words(gap):
    accuracy, dice = one_metric("forget_accuracy", None, gap), one_metric("forget_dice", "segmentation", gap)
    (one,), (other,) = findings(accuracy), findings(dice)
    assert (one.level, one.evidence) == (other.level, other.evidence)
    assert headline(dice) == headline(accuracy).replace("accuracy", "Dice")
    assert evidence(dice) == [line.replace("accuracy", "Dice") for line in evidence(accuracy)]
    assert "the Dice of puf is" in evidence(dice)[0]
    assert cautions(dice) == cautions(accuracy)


def test_a_measure_of_another_task_is_no_evidence():
    assert findings(one_metric("forget_accuracy", "segmentation", 5.0))[0].level == "unknown"


def test_an_unknown_task_is_refused_in_one_line():
    with pytest.raises(RunError, match=r"scorecard.json: task = 'detection': must be one of .*update"):
        Scores({"task": "detection"})


# -- tables ---------------------------------------------------------------------------------------------------


def test_the_terminal_shows_dice_and_the_distance_in_100_columns(card):
    lines = rendered(scorecard_table(card))
    assert max(map(len, lines)) <= 100
    assert [line.strip() for line in lines[:2]] == ["prostate", WORDS]
    start = next(place for place, line in enumerate(lines) if line.strip() == PUF)
    (row,) = [line.split() for line in lines[start : start + 5] if line.strip().startswith("compare")]
    line = aggregate(card, PUF, "compare")
    expected = ["compare"]
    for metric in ("forget_dice", "retain_dice", "test_dice", "forget_hausdorff", "mia_svc"):
        gap = line["abs_gap"][metric]
        expected.append(f"{line['metrics'][metric]['mean']:.1f}")
        if metric not in ("retain_dice", "forget_hausdorff"):
            expected.append(f"{gap['mean']:.1f}±{gap['std']:.1f}")
        if metric == "forget_dice":
            expected.append(f"{line['floor'][metric]['mean']:.1f}")
    assert row == [*expected, f"{line['recovery_rounds']['mean']:.1f}", "(3/3)", "3"]
    text = " ".join(" ".join(lines).split())
    assert (
        "median |gap| in forget Dice between retrainings" in text
        and "distance on the forgotten data, mm" in text
    )
    assert "accuracy" not in text


def test_wide_numbers_still_fit_the_terminal():
    run = SegmentationRun(seeds=(1, 2, 3), targets=tuple((k,) for k in range(6)))
    for place, row in enumerate(run.rows):
        for metric in ("forget_dice", "test_dice", "mia_svc"):
            row.gap[metric] = 20.0 + 70 * (place % 2)
    lines = rendered(scorecard_table(run.card("r")))
    assert max(map(len, lines)) <= 100
    assert not [line for line in lines if re.match(r"^ {5,}\S", line) and "±" in line and "std" not in line]
    assert any(line.count("±") == 3 and line.endswith("(18/18)  18") for line in lines), "all in one line"


def test_markdown_has_the_origin_first_and_every_distance(card):
    text = markdown(card)
    assert text.splitlines()[:3] == ["# Scorecard of prostate", "", f"**{WORDS}**"]
    assert "accuracy" not in text and "Percentages, Hausdorff distances in mm;" in text
    (table, rows) = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    head, _, *body = [cells(line) for line in table.splitlines()]
    titles = [
        "forget Dice", "retain Dice", "test Dice", "forget Hausdorff, mm", "MIA-SVC", "forget Dice, test slices",
        "test Hausdorff, mm", "missed test slices, %",
    ]  # fmt: skip
    assert head[3:-1:3] == titles
    line = aggregate(card, PUF, "cap")
    (shown,) = [row for row in body if row[:2] == [PUF, "cap"]]
    for place, metric in (3, "forget_dice"), (12, "forget_hausdorff"), (24, "test_missed"):
        value, floor = line["metrics"][metric], line["floor"][metric]
        assert shown[place] == f"{value['mean']:.1f} ± {value['std']:.1f}"
        assert shown[place + 2] == f"{floor['mean']:.1f}"
    assert len(rows.splitlines()) == 2 + len(card["rows"])


def test_runs_of_two_tasks_side_by_side_say_which_measure_is_whose(card):
    other = ExampleRun(targets=((0,), (2,))).card("digits-1")
    lines = rendered(comparison_table([other, card]))
    assert max(map(len, lines)) <= 100
    text = " ".join(" ".join(lines).split())
    assert "points of one measure are not points of another" in text
    column = [line[:20].strip() for line in lines]
    assert column[column.index("digits-1") + 1] == "accuracy"
    assert column[column.index("prostate-12345678") + 1] == "Dice, phantom data"
    gap = aggregate(card, PUF, "compare")["abs_gap"]["forget_dice"]
    last = [line for line in lines if PUF in line][-1]
    assert f"{gap['mean']:.1f}±{gap['std']:.1f}" in last


def test_runs_of_one_task_are_not_warned_about_another(card):
    alone = " ".join(rendered(comparison_table([card, card])))
    assert "Dice" in alone and "points of one measure" not in alone and "accuracy" not in alone
    classified = " ".join(rendered(comparison_table([ExampleRun(targets=((0,),)).card("r")])))
    assert "Dice" not in classified and "accuracy" not in classified


# -- the figure -----------------------------------------------------------------------------------------------


def test_the_figure_speaks_of_dice_and_of_the_phantom(directory, tmp_path):
    root = ElementTree.fromstring(write_figure(directory, tmp_path / "f.svg", number=1).read_text())
    assert root.attrib["aria-label"] == "prostate-12345678: Forget client 2 (I2CVB)"
    texts = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Dice on the forgotten data", "Dice on test data", WORDS} <= {text.strip() for text in texts}
    _, _, _, height = map(float, root.attrib["viewBox"].split())
    (origin,) = [e for e in root.iter("{http://www.w3.org/2000/svg}text") if e.text == WORDS]
    charts = [e for e in root if e.tag.endswith("}svg")]
    bottom = max(float(e.attrib["y"]) + float(e.attrib["height"]) for e in charts)
    assert bottom < float(origin.attrib["y"]) < height


def test_a_timeline_of_masks(tmp_path):
    run = SegmentationRun(targets=((0,), (2, 3), (5,)), timeline=(20, 22, ROUNDS))
    page = parse(write_report(run.write(tmp_path / "t")).read_text())
    svg = chart(page, "rounds-0-test")
    assert len(marks(svg, "retrain")) == 3
    assert (
        marks(svg, "retrain")[1]
        .all("title")[0]
        .text.startswith("retrained without clients 0 (BIDMC), 2 (I2CVB) and 3 (ISBI):")
    )
    assert {e.attributes["data-label"] for e in page.all("article")} == {PUF, NATURAL}
