"""The centralised benchmark, in little: tables that have the scorecards' numbers, and a picture of the same."""

import json
from statistics import fmean
from xml.etree import ElementTree

import pytest

from benchmarks import centralised
from benchmarks.docs import END
from tests.sweep.small import EXPERIMENT, SWEEP, write

CLASSES = (
    EXPERIMENT.replace("clients = [1]\nsamples = 0.5", "classes = [2]")
    .replace('name = "small"', 'name = "small-class"')
    .replace('routine = "fine-tune"', 'routine = "fine-tune"\nsettings = {lr = 1e30}\nlabel = "hot"')
)
"""Of whose methods one diverges."""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Run it, and return the page, its picture, and the scorecards by experiment."""
    folder = tmp_path_factory.mktemp("centralised")
    (folder / "class").mkdir()
    class_sweep = (
        SWEEP.replace('name = "find"', 'name = "find-class"\ntarget = [{classes = [1]}]')
        .replace("space.fine-tune", "space.hot")
        .replace("low = 0.001, high = 0.1", "low = 0.001, high = 0.01")
    )
    files = {
        "random": ("Half", write(folder, experiment=EXPERIMENT.replace("seeds = [1]", "seeds = [1, 2]"))),
        "class": ("A class", write(folder / "class", class_sweep, CLASSES)),
    }
    page = folder / "page.md"
    page.write_text(f"before\n{centralised.BEGIN}\nold\n{END}\nafter\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(centralised, "SWEEPS", files)
        patch.setattr(centralised, "HOSTED", folder / "small.toml")
        patch.setattr(centralised, "PAGE", page)
        patch.setattr(centralised, "PICTURE", folder / "picture.svg")
        patch.setenv("FEDUNLEARN_CACHE", str(folder / "cache"))
        centralised.main(["--write-docs", "--out", str(folder / "runs")])
    cards = [json.loads(path.read_text()) for path in (folder / "runs").glob("*/scorecard.json")]
    by_name = {card["experiment"]: card for card in cards}
    return page.read_text(), (folder / "picture.svg").read_text(), by_name


def section(page, heading):
    """Return a section's first table: cells by what stands first, the heads without their emphasis."""
    text = page.partition(f"### {heading}\n")[2].partition("\n### ")[0]
    table = text.strip().partition("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]
    return {row[0].strip("*"): dict(zip(rows[0], row, strict=True)) for row in rows[2:]}


def gaps_of(card, label, at):
    return [row["metrics"]["average_gap"] for row in card["rows"] if (row["label"], row["at"]) == (label, at)]


@pytest.mark.slow
def test_the_page_keeps_what_is_written_by_hand(written):
    page, _, _ = written
    assert "old" not in page and page.startswith("before") and page.endswith("after\n")
    assert "By `python -m benchmarks.centralised`." in page


@pytest.mark.slow
def test_both_settings_stand_side_by_side_with_the_scorecards_numbers(written):
    page, _, cards = written
    found, card = section(page, "Half"), cards["small-tuned"]
    references = {"a second retraining (floor)", "the original"}
    assert set(found) == {"puf-special-2", "fine-tune"} | references, "nothing was searched for natural"
    for label in ("puf-special-2", "fine-tune"):
        for column, each in (("Average Gap", label), ("tuned: Average Gap", f"{label}-tuned")):
            assert found[label][column].startswith(f"{fmean(gaps_of(card, each, 'cap')):.2f} [")
            seconds = [
                r["cost"]["seconds"] for r in card["rows"] if (r["label"], r["at"]) == (each, "unlearned")
            ]
            assert float(found[label][column.replace("Average Gap", "seconds")]) == pytest.approx(
                fmean(seconds), abs=0.006
            )
    assert "scale = " in found["puf-special-2"]["tuned settings"]
    label = card["rows"][-1]["label"]
    floors = [
        row["floor"]["average_gap"] for row in card["rows"] if (row["label"], row["at"]) == (label, "cap")
    ]
    assert found["a second retraining (floor)"]["Average Gap"].startswith(f"{fmean(floors):.2f} [")
    original = fmean(gaps_of(card, "original", "request"))
    assert found["the original"]["Average Gap"].startswith(f"{original:.2f} [")


@pytest.mark.slow
def test_what_diverged_is_said_and_comes_last(written):
    page, _, cards = written
    found, card = section(page, "A class"), cards["small-class-tuned"]
    assert found["hot"]["Average Gap"] == "–, 1 diverged"
    assert "diverged" not in found["hot"]["tuned: Average Gap"]
    tuned = [fmean(gaps_of(card, f"{label}-tuned", "cap")) for label in list(found)[:-2]]
    assert tuned == sorted(tuned) and len(tuned) == 2


@pytest.mark.slow
def test_the_hosted_are_shown_unlearned_and_recovered(written):
    page, _, cards = written
    found, card = section(page, "Hosted by clients"), cards["small"]
    assert list(found) == ["puf-special-2", "fine-tune", "natural", "a second retraining (floor)"]
    for label in list(found)[:-1]:
        for column, at in (
            ("unlearned: Average Gap", "unlearned"),
            ("recovered or at the cap: Average Gap", "cap"),
        ):
            assert found[label][column].startswith(f"{fmean(gaps_of(card, label, at)):.2f} [")


@pytest.mark.slow
def test_the_picture_has_a_mark_for_every_number(written):
    page, picture, _ = written
    root = ElementTree.fromstring(picture)
    titles = [title.text for title in root.iter() if title.tag.endswith("title")]
    for heading in ("Half", "A class"):
        for label, cells in section(page, heading).items():
            for column, name in (("Average Gap", label), ("tuned: Average Gap", f"{label}-tuned")):
                if "–" not in cells[column] and " " not in label:
                    assert f"{name}: {cells[column]}" in titles
    assert not any(str(title).startswith("hot:") for title in titles)
