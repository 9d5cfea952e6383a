"""A chart as a file of its own: the report's own chart, in an SVG that needs nothing around it."""

import json
import re
from xml.etree import ElementTree

import pytest

from fedunlearn.errors import UserError
from fedunlearn.html.palette import SCHEMES, STAND_INS
from fedunlearn.report.figure import write_figure
from fedunlearn.report.page import write_report
from tests.report.example_rows import NATURAL, PUF
from tests.report.example_run import ExampleRun
from tests.report.parsed_page import parse

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return ExampleRun().write(tmp_path_factory.mktemp("runs") / "quickstart-12345678")


@pytest.fixture(scope="module")
def figure(directory):
    """The second target's figure: its text and its root element."""
    text = write_figure(directory, directory.parent / "figure.svg", number=1).read_text()
    return text, ElementTree.fromstring(text)


def charts(root):
    return {svg.attrib["data-plot"]: svg for svg in root.findall(f"{SVG}svg")}


def number(element, name):
    return float(element.attrib[name])


def test_it_is_a_file_for_people_who_ask_for_a_path(directory, tmp_path):
    path = tmp_path / "figure.svg"
    assert write_figure(directory, path) == path
    root = ElementTree.fromstring(path.read_text())
    assert root.tag == f"{SVG}svg"
    assert root.attrib["aria-label"] == "quickstart-12345678: Forget client 0", "the first by default"


def test_forgotten_and_test_data_stand_side_by_side_and_inside(figure):
    _, root = figure
    assert root.attrib["aria-label"] == "quickstart-12345678: Forget client 2"
    left, right = charts(root)["figure-forget"], charts(root)["figure-test"]
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert number(root, "width") == width
    assert number(left, "x") + number(left, "width") < number(right, "x")
    assert number(right, "x") + number(right, "width") < width
    assert number(left, "y") + number(left, "height") < height
    assert left.attrib["viewBox"].split()[2:] == [left.attrib["width"], left.attrib["height"]]


def test_the_curves_are_the_reports_own(directory, figure):
    page = parse(write_report(directory).read_text(encoding="utf-8"))
    _, root = figure
    for split in ("forget", "test"):
        (shown,) = page.all("svg", data_plot=f"rounds-1-{split}")
        expected = [e.attributes["d"] for e in shown.inside if e.tag == "path" and "id" not in e.attributes]
        found = [
            e.attrib["d"] for e in charts(root)[f"figure-{split}"].iter(f"{SVG}path") if "id" not in e.attrib
        ]
        assert found == expected
        assert len(found) > 10


def test_the_legend_names_every_curve_in_its_colour(figure):
    _, root = figure
    keys = root.findall(f"{SVG}g")
    texts = [e.text for e in root.findall(f"{SVG}text")]
    assert texts == ["original", "retrain", PUF, NATURAL]
    inks = [e.attrib["stroke"] for e in keys]
    assert inks == ["var(--original)", "var(--retrain)", "var(--method0)", "var(--natural)"]
    dashed = ["stroke-dasharray" in e.find(f"{SVG}path").attrib for e in keys]
    assert dashed == [False, True, False, False]
    marks = {e.attrib.get("data-mark") for e in charts(root)["figure-test"].iter()}
    assert {f"curve {label}" for label in ("original", PUF, NATURAL)} | {"retrain"} <= marks


def test_nothing_is_loaded_and_every_colour_is_defined_for_light_and_dark(figure):
    text, root = figure
    defined = re.findall(r"--(\w+):(#\w+)", text)
    used = set(re.findall(r"var\(--(\w+)\)", text))
    assert used
    for name in used:
        assert {colour for n, colour in defined if n == name} == set(SCHEMES[name])
    assert "prefers-color-scheme:dark" in text
    assert not any(stand_in in text for stand_in in STAND_INS.values())
    links = [v for e in root.iter() for k, v in e.attrib.items() if k.endswith("href") or "url(" in v]
    assert links
    names = {e.attrib["id"] for e in root.iter() if "id" in e.attrib}
    assert {re.sub(r".*#([^)]+)\)?$", r"\1", link) for link in links} == names
    assert len(names) == text.count(' id="'), "each once"


def test_many_methods_with_long_names_stay_inside(tmp_path):
    labels = [f"puf-special-{'x' * 30}-{i}" for i in range(5)]
    run = ExampleRun(targets=((0,),))
    (method,) = (b for b in run.branches if b["label"] == PUF)
    run.branches += [{**method, "label": label} for label in labels]
    directory = run.write(tmp_path / "wide")
    root = ElementTree.fromstring(write_figure(directory, tmp_path / "wide.svg").read_text())
    _, _, width, _ = map(float, root.attrib["viewBox"].split())
    texts = root.findall(f"{SVG}text")
    assert [e.text for e in texts][4:] == labels
    assert all(number(e, "x") + 7 * len(e.text) <= width for e in texts)
    assert [number(e, "x") for e in texts] == sorted({number(e, "x") for e in texts})


def test_names_with_markup_in_them_are_text(tmp_path):
    directory = ExampleRun(targets=((0,),)).write(tmp_path / "a&b<c>")
    root = ElementTree.fromstring(write_figure(directory, tmp_path / "f.svg").read_text())
    assert root.attrib["aria-label"].startswith("a&b<c>: ")


def test_a_timeline_is_one_figure(tmp_path):
    run = ExampleRun(targets=((0,), (2, 3), (5,)), timeline=(20, 22, 30)).write(tmp_path / "t")
    root = ElementTree.fromstring(write_figure(run, tmp_path / "f.svg").read_text())
    assert root.attrib["aria-label"] == "t: Timeline of 3 requests: forget clients 0, 2, 3 and 5"
    with pytest.raises(UserError, match="choose 0 to 0"):
        write_figure(run, tmp_path / "g.svg", number=1)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_chart_that_is_not_there(wrong, directory, tmp_path):
    with pytest.raises(UserError) as caught:
        write_figure(directory, tmp_path / "f.svg", number=wrong)
    assert str(caught.value) == f"chart {wrong}: {directory} has 3; choose 0 to 2"
    assert not (tmp_path / "f.svg").exists()


def test_a_run_without_charts(tmp_path):
    directory = ExampleRun().write(tmp_path / "run")
    (directory / "branches.json").write_text(json.dumps([]))
    with pytest.raises(UserError, match=r"has 0; its branches.json lists no method$"):
        write_figure(directory, tmp_path / "f.svg")
    with pytest.raises(UserError, match="no such run directory"):
        write_figure(tmp_path / "nowhere", tmp_path / "f.svg")
