"""The pictures on the page: which stand where, that they are the run's own files, and what is said of each."""

import base64
import json
from pathlib import Path

import pytest

from fedunlearn.errors import RunError
from fedunlearn.report import gallery
from fedunlearn.report.page import write_report
from tests.report.example_rows import CAP, NATURAL, PUF
from tests.report.example_run import ROUNDS, ExampleRun
from tests.report.example_segmentation import SegmentationRun
from tests.report.parsed_page import Element, parse


def page_of(directory: Path) -> Element:
    return parse(write_report(directory).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    return SegmentationRun().write(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def page(directory) -> Element:
    return page_of(directory)


def sets(page: Element) -> list[Element]:
    return page.all("section", id="pictures")[0].all("div", class_="panel")


def shown(row: Element) -> list[tuple[str, str, str | None]]:
    return [
        (f.attributes["data-label"], f.attributes["data-at"], f.attributes.get("data-round"))
        for f in row.all("figure")
    ]


def test_truth_and_original_then_each_method_beside_retraining_in_the_same_round(page):
    assert [s.attributes["data-target"] for s in sets(page)] == ["0", "1", "2"]
    start, puf, natural = sets(page)[1].all("div", class_="shots")
    asked, soon, recovered, cap = (str(r) for r in (ROUNDS, ROUNDS + 1, ROUNDS + 5, ROUNDS + CAP))
    assert shown(start) == [("truth", "truth", None), ("original", "request", asked)]
    assert shown(puf) == [
        (PUF, "unlearned", soon),
        (PUF, "recovered", recovered),
        ("retrain", "recovered", recovered),
    ]
    assert shown(natural) == [(NATURAL, "unlearned", soon), (NATURAL, "cap", cap), ("retrain", "cap", cap)]


@pytest.mark.slow
def test_the_seed_is_named_only_where_there_are_several(page, tmp_path):
    def titles(page):
        return [title.text for shown in sets(page) for title in shown.all("h3")]

    assert len(titles(page)) == 3 and not [title for title in titles(page) if "seed" in title]
    both = titles(page_of(SegmentationRun(seeds=(1, 2)).write(tmp_path / "run")))
    assert [title.rpartition(" · ")[2] for title in both] == ["seed 1"] * 3 + ["seed 2"] * 3


def test_a_picture_is_the_run_s_file_and_is_in_the_page(directory, page):
    index = json.loads((directory / "pictures" / "index.json").read_text())
    files = {
        (e["target"], e["label"], e["at"], e["round"]): (directory / "pictures" / e["file"]).read_bytes()
        for e in index
    }
    seen = set()
    for block in sets(page):
        for figure in block.all("figure"):
            (image,) = figure.all("img")
            kind, data = image.attributes["src"].split(",")
            assert kind == "data:image/png;base64"
            label, at, round = shown_of(figure)
            key = (int(block.attributes["data-target"]), label, at, round)
            assert base64.b64decode(data) == files[key]
            seen.add(key)
            assert (image.attributes["width"], image.attributes["height"]) == ("192", "192")
    assert seen == set(files)


def shown_of(figure: Element) -> tuple[str, str, int | None]:
    round = figure.attributes.get("data-round")
    return figure.attributes["data-label"], figure.attributes["data-at"], int(round) if round else None


def test_alt_texts_and_captions_say_what_is_seen(page):
    block = sets(page)[2]
    where = "Test slice 11 of case 5 of client 5 (UCL), counted from 0."
    assert block.all("h3")[0].text == "Forget client 5 (UCL)"
    assert where in block.text
    alts = [image.attributes["alt"] for image in block.all("img")]
    assert len(set(alts)) == len(alts), "no two pictures are told alike"
    assert alts[0] == f"{where} The true prostate, outlined."
    assert alts[2] == (
        f"{where} {PUF}, just unlearned, round 31: predicted prostate over the true outline. Dice 54.0."
    )
    captions = [caption.text for caption in block.all("figcaption")]
    assert captions[0] == "truththe mask of the data"
    assert captions[2] == f"{PUF}just unlearned, round 31Dice 54.0"
    assert captions[4] == "retrainedround 34Dice 84.0"


def test_some_sets_are_open_some_folded_and_the_rest_said_to_be_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "SHOWN_SETS", 1)
    monkeypatch.setattr(gallery, "MOST_SETS", 3)
    page = page_of(SegmentationRun(seeds=(1, 2), targets=((0,), (2, 5))).write(tmp_path / "run"))
    section = page.all("section", id="pictures")[0]
    (folded,) = section.all("details")
    assert folded.all("summary")[0].text == "2 more"
    assert [s.all("h3")[0].text for s in sets(page)] == [
        "Forget client 0 (BIDMC) · seed 1",
        "Forget clients 2 (I2CVB) and 5 (UCL) · seed 1",
        "Forget client 0 (BIDMC) · seed 2",
    ]
    assert len(folded.all("div", class_="panel")) == 2
    assert "1 more set in pictures/." in section.text


def test_as_many_sets_as_there_may_be_leave_the_page_a_page(directory):
    """Each of them with three methods beside the original, and no picture twice."""
    largest = max(file.stat().st_size for file in (directory / "pictures").glob("*.png"))
    assert largest * 4 / 3 * gallery.MOST_SETS * (2 + 3 * 3) < 4e6


def test_a_picture_that_is_gone_is_left_out(tmp_path):
    directory = SegmentationRun(targets=((0,),)).write(tmp_path / "run")
    gone = next((directory / "pictures").glob("*natural*r0031*"))
    gone.unlink()
    (block,) = sets(page_of(directory))
    rows = block.all("div", class_="shots")
    assert not rows[2:] or (NATURAL, "unlearned", "31") not in shown(rows[2])
    for file in (directory / "pictures").glob("*.png"):
        file.unlink()
    assert not page_of(directory).all("section", id="pictures")


def test_without_pictures_there_is_neither_section_nor_style(tmp_path):
    page = page_of(ExampleRun(targets=((0,),)).write(tmp_path / "run"))
    assert not page.all("section", id="pictures") and not page.all("img")
    assert ".shots" not in page.all("style")[0].text


def test_the_index_cannot_reach_outside_its_folder_nor_write_markup(tmp_path):
    hostile = "<script>alert('x')</script>\"&"
    run = SegmentationRun(targets=((0,),))
    directory = run.write(tmp_path / "run")
    secret = tmp_path / "run" / "secret.png"
    secret.write_bytes((directory / "pictures" / run.pictured[0]["file"]).read_bytes())
    for entry in run.pictured:
        entry |= {"label": hostile if entry["label"] == PUF else entry["label"], "client_name": hostile}
    run.pictured[1]["file"] = "../secret.png"
    (directory / "pictures" / "index.json").write_text(json.dumps(run.pictured))
    (directory / "partition.json").unlink()
    page = page_of(directory)
    assert not page.all("script")
    assert hostile in sets(page)[0].text
    assert len(sets(page)[0].all("img")) == len(run.pictured) - 1


@pytest.mark.parametrize("index", ["{}x", '[{"seed": 1}]', "[7]", "7"])
def test_a_damaged_index_is_named(tmp_path, index):
    directory = SegmentationRun(targets=((0,),)).write(tmp_path / "run")
    (directory / "pictures" / "index.json").write_text(index)
    with pytest.raises(RunError, match=r"pictures/index\.json: "):
        write_report(directory)


def test_a_model_without_a_dice_is_shown_all_the_same(tmp_path):
    run = SegmentationRun(targets=((0,),))
    directory = run.write(tmp_path / "run")
    run.pictured[2]["dice"] = None
    (directory / "pictures" / "index.json").write_text(json.dumps(run.pictured))
    (block,) = sets(page_of(directory))
    assert "Dice could not be measured" in block.all("img")[2].attributes["alt"]
