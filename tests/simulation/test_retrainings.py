"""How many further retrainings there are: what the file says, else three where cheap, on every machine alike."""

import json

import pytest

from fedunlearn import config
from fedunlearn.config import FloorConfig
from fedunlearn.errors import ConfigError
from fedunlearn.simulation import retrainings
from fedunlearn.simulation.retrainings import choose_retrainings
from fedunlearn.simulation.runner import read_scorecard, simulate
from tests.e2e.tiny import TINY, tiny

OPEN = TINY.replace("[floor]\nretrainings = 1\n", "")


def test_what_the_file_says_stays():
    for number in (1, 2, 5):
        experiment = tiny(f"floor.retrainings={number}")
        assert choose_retrainings(experiment).experiment == experiment
        assert experiment.floor.retrainings == number
    assert choose_retrainings(tiny("floor.retrainings=2")).why == (
        "2 further retrainings of each retrained model, as set by [floor]"
    )


def test_nothing_is_chosen_yet_in_a_file_that_leaves_it_open():
    assert tiny(text=OPEN).floor == FloorConfig()
    assert tiny(text=OPEN).floor.retrainings == 1
    assert config.digest(tiny(text=OPEN)) != config.digest(tiny(text=OPEN + "[floor]\nretrainings = 3\n"))


def test_three_where_that_is_cheap_else_one():
    little = choose_retrainings(tiny(text=OPEN))
    assert little.experiment.floor.retrainings == 3
    assert (
        "3 further retrainings of each retrained model: 2 more than 1 take about 0 s on a core of"
        in little.why
    )
    much = choose_retrainings(tiny("train.rounds=1000000", text=OPEN))
    assert much.experiment.floor.retrainings == 1
    assert "1 further retraining of each retrained model: 2 more than 1 would take about " in much.why
    assert much.why.endswith("and up to 60 s is cheap")


@pytest.mark.parametrize(
    "more", ["seeds=[1, 2, 3]", "targets=[[0], [1], [2]]", "train.rounds=12", "train.local-epochs=3"]
)
def test_it_grows_with_everything_that_is_retrained(more, monkeypatch):
    def chosen(*overrides):
        return choose_retrainings(tiny(*overrides, text=OPEN)).experiment.floor.retrainings

    # 6 rounds of 128 rows; a multilayer perceptron on 8 × 8 pixels takes little beside what an example takes at all.
    monkeypatch.setattr(retrainings, "CHEAP", 2 * 6 * 128 * retrainings.OVERHEAD * 1.5)
    assert chosen() == 3
    assert chosen(more) == 1


def test_a_wider_model_is_dearer(monkeypatch):
    monkeypatch.setattr(retrainings, "CHEAP", 2 * 6 * 128 * retrainings.OVERHEAD * 1.5)
    assert choose_retrainings(tiny("model.hidden=[8192]", text=OPEN)).experiment.floor.retrainings == 1


def test_a_run_notes_its_choice_and_has_the_median_of_three(tmp_path):
    folder = simulate(tiny(text=OPEN), out=tmp_path)
    assert config.load(folder / "experiment.toml").floor == FloorConfig(given_retrainings=3)
    names = [record["branch"] for record in json.loads((folder / "branches.json").read_text())]
    assert [name for name in names if name.startswith("floor")] == [
        "floor-0-s1",
        "floor-0-s1-2",
        "floor-0-s1-3",
    ]
    alone = simulate(tiny(), out=tmp_path / "one")
    rows, single = (read_scorecard(run)["rows"] for run in (folder, alone))
    assert len(rows) == len(single)
    differs = 0
    for row, one in zip(rows, single, strict=True):
        assert [row[key] for key in ("label", "at", "round", "metrics", "gap")] == [
            one[key] for key in ("label", "at", "round", "metrics", "gap")
        ], "scores are what they are with one"
        for name, distances in row["floors"].items():
            assert len(distances) == 3
            assert distances[:1] == one["floors"][name], "the first is the one there always was"
            known = sorted(value for value in distances if value is not None)
            assert row["floor"][name] == (known[1] if len(known) == 3 else row["floor"][name])
            differs += row["floor"][name] != one["floor"][name]
    assert differs > 0


def test_a_live_federation_is_held_against_none():
    live = OPEN.replace("targets = [[1]]\n", "").replace('[[method]]\nname = "natural"\n', "").replace(
        "[recover]", '[requests]\n[recover]\nuntil = "reference-accuracy"'
    )  # fmt: skip
    assert choose_retrainings(config.loads(live)) == (config.loads(live), "")
    with pytest.raises(ConfigError, match=r"^floor .*must be left out with \[requests\]"):
        config.loads(live + "[floor]\nretrainings = 3\n")


@pytest.mark.parametrize("value", ["0", "-1", "1.5", '"three"'])
def test_a_number_of_retrainings_is_a_whole_one_from_1_on(value):
    with pytest.raises(ConfigError, match=r"^floor\.retrainings = .*must be"):
        config.loads(OPEN + f"[floor]\nretrainings = {value}\n")
