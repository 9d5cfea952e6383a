"""The augmentation study: every policy a run, and tables that have the scorecards' numbers."""

import json

import pytest
from PIL import Image

from benchmarks import augmentation
from benchmarks.docs import END
from fedunlearn.simulation.augmented import policies_of

LITTLE = ["--smoke", "--set", "model.name=mlp", "--set", "model.hidden=[4]", "--set", "method[3].routine=gda"]


@pytest.mark.slow
def test_every_policy_runs_and_the_page_gets_the_tables(tmp_path, monkeypatch, capsys):
    assert augmentation.BEGIN in augmentation.PAGE.read_text()
    page = tmp_path / "augmentation.md"
    page.write_text(f"before\n{augmentation.BEGIN}\nold\n{END}\nafter\n")
    monkeypatch.setattr(augmentation, "PAGE", page)
    monkeypatch.setattr(augmentation, "TIMED", 2)
    monkeypatch.setattr(
        augmentation, "policies_of", lambda base: policies_of(base)[:2] + policies_of(base)[-1:]
    )
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(tmp_path / "cache"))
    short = [word for n in (1, 2, 3) for word in ("--set", f"method[{n}].settings.epochs=1")]
    augmentation.main([*LITTLE, *short, "--write-docs", "--out", str(tmp_path / "runs")])
    text = page.read_text()
    assert "old" not in text and text.startswith("before") and text.endswith("after\n")
    cards = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/scorecard.json")]
    assert len(cards) == 3
    shown = {line.split(" | ")[0].strip("| ") for line in text.splitlines() if line.startswith("|")}
    assert {"none", "crop", "crop+trivialaugment", "randaugment", "augmix"} <= shown
    gaps = sorted(
        f"{row['metrics']['average_gap']:.2f}"
        for card in cards
        for row in card["rows"]
        if (row["label"], row["at"]) == ("fine-tune", "cap")
    )
    first, *_ = text.partition("| augmentation |")
    assert len(gaps) == 3 and all(f"| {gap} (n 1) |" in first for gap in gaps)
    assert "By `python -m benchmarks.augmentation`." in capsys.readouterr().out


def test_the_picture_shows_every_policy(tmp_path):
    augmentation.main(["--picture", str(tmp_path / "x.png")])
    width, height = Image.open(tmp_path / "x.png").size
    assert width > height > 400
