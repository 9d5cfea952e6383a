"""A package outside the repository brings one of each kind; an experiment uses all of them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from fedunlearn import config, plugins
from fedunlearn.cli.listing import catalogue
from fedunlearn.errors import ConfigError
from fedunlearn.report.page import write_report
from fedunlearn.simulation.runner import read_scorecard, simulate
from tests.plugins.orchard import (
    COMPONENTS,
    FILES,
    install_by_hand,
    install_by_pip,
    new_process,
    write_project,
)

TEXT = """
name = "orchard"
targets = [[1]]
data = {source = "apples", crates = 3, partition = "rows", first = 0.5, validation = 0.2}
federation.num-clients = 4
model = {name = "trunk", rings = 5}
train = {rounds = 2, batch-size = 8, lr = 0.1}
recover = {until = "max-rounds", max-rounds = 2}
floor.retrainings = 1
[[method]]
name = "damped"
rate = 0.25
[[method]]
name = "local-routine"
routine = "shake"
settings = {strength = 0.5}
[[method]]
name = "natural"
"""
EVERY = {
    *("original-s1", "retrain-0-s1", "floor-0-s1"),
    *("damped-0-s1", "shake-0-s1", "natural-0-s1"),
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder of packages with the orchard installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    install_by_hand(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    new_process()
    yield folder
    monkeypatch.undo()
    new_process()


def run(out: Path) -> tuple[Path, set[str]]:
    """Run the experiment anew; return its folder and the branches that were computed."""
    folder = simulate(config.loads(TEXT), out=out, fresh=True)
    records = json.loads((folder / "branches.json").read_text(encoding="utf-8"))
    assert {record["branch"] for record in records} == EVERY
    return folder, {record["branch"] for record in records if not record["cached"]}


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    new_process()


@pytest.mark.capability("plug-in")
def test_one_experiment_uses_one_of_each_and_a_second_run_comes_from_the_cache(site, tmp_path):
    experiment = config.loads(TEXT)
    written = config.to_toml(experiment)
    assert config.loads(written) == experiment
    for line in ("crates = 3", "first = 0.5", "rings = 5", "rate = 0.25", "strength = 0.5"):
        assert line in written
    folder, computed = run(tmp_path / "runs")
    assert computed == EVERY
    rows = read_scorecard(folder)["rows"]
    assert {row["label"] for row in rows} == {"original", "retrain", "damped", "shake", "natural"}
    assert all(0 <= row["metrics"]["sourness"] <= 1 for row in rows)
    assert "sourness" in write_report(folder).read_text(encoding="utf-8")
    new_process()
    again, computed = run(tmp_path / "runs")
    assert computed == set()
    assert read_scorecard(again)["rows"][0]["metrics"] == rows[0]["metrics"]


@pytest.mark.quick(file=2)
@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("damped.py", "SIGN * self", "0.5 * SIGN * self", {"damped-0-s1"}),
        ("steps.py", "-1.0", "-2.0", {"damped-0-s1"}),
        ("shake.py", "settings.strength *", "2 * settings.strength *", {"shake-0-s1"}),
        ("trunk.py", "nn.Tanh()", "nn.ReLU()", EVERY),
        ("apples.py", "0, 60,", "0, 50,", EVERY),
        ("rows.py", "np.int64)", "np.int64)  # as ever", EVERY),  # not even a row moves
        ("taste.py", "float(1 -", "float(2 -", set()),
    ],
)
def test_editing_its_source_recomputes_what_it_computes(site, tmp_path, file, old, new, expected):
    before, _ = run(tmp_path / "runs")
    rows = read_scorecard(before)["rows"]
    edited(site / "orchard" / file, old, new)
    after, computed = run(tmp_path / "runs")
    assert computed == expected
    if file == "taste.py":
        found = [row["metrics"]["sourness"] for row in read_scorecard(after)["rows"]]
        assert found[0] == pytest.approx(1 + rows[0]["metrics"]["sourness"])


WRONG = [
    ("method[1].rate=2", "method[1].rate = 2 (--set method[1].rate=2): must be <= 1"),
    (
        "method[1].rat=0.2",
        "method[1].rat = 0.2 (--set method[1].rat=0.2): unknown key; did you mean method[1].rate?",
    ),
    (
        "method[2].settings.strength=-1",
        "method[2].settings.strength = -1 (--set method[2].settings.strength=-1): must be >= 0",
    ),
    ("model.rings=0", "model.rings = 0 (--set model.rings=0): must be >= 1"),
    ("data.crates='many'", "data.crates = \"many\" (--set data.crates='many'): must be a whole number"),
    ("data.first=1", "data.first = 1 (--set data.first=1): must be < 1"),
    ("data.alpha=1", 'data.alpha = 1 (--set data.alpha=1): belongs to partition = "dirichlet"; leave it out'),
    (
        "model.name=trunks",
        'model.name = "trunks" (--set model.name=trunks): must be one of "mlp", "small-cnn", "resnet18", "vit", '
        '"mit-b0", "unet", "trunk", or "package.module:object"; did you mean "trunk"?',
    ),
    (
        "method[3].name=orchard.damped:Dumped",
        'method[3].name = "orchard.damped:Dumped" (--set method[3].name=orchard.damped:Dumped): is broken: '
        "orchard.damped:Dumped cannot be loaded: AttributeError: module 'orchard.damped' has no attribute 'Dumped'",
    ),
]


@pytest.mark.parametrize(("assignment", "line"), WRONG)
def test_a_wrong_setting_is_refused_in_one_line(site, assignment, line):
    with pytest.raises(ConfigError) as refused:
        config.loads(TEXT, "x.toml", overrides=[assignment])
    assert str(refused.value) == line


def test_a_class_that_its_data_do_not_have_is_refused(site):
    text = TEXT.replace("targets = [[1]]\n", "") + "[[target]]\nclasses = [3]\n"
    with pytest.raises(ConfigError, match=r'there is no class 3; data.source = "apples" has 3 classes'):
        config.loads(text)


def test_any_of_its_objects_can_be_named_directly(site):
    text = TEXT
    for each in COMPONENTS.values():
        for name, value in each.items():
            text = text.replace(f'"{name}"', f'"{value}"')
    text = text.replace('name = "orchard"', 'name = "direct"')
    direct, named = config.loads(text), config.loads(TEXT)
    assert [method.label for method in direct.methods] == ["Damped", "shake", "natural"]
    assert config.loads(config.to_toml(direct)) == direct
    assert direct.model.settings == named.model.settings
    assert direct.data.source_settings == named.data.source_settings


def test_a_label_that_names_no_file_is_refused(site):
    edited(site / "orchard" / "damped.py", "    rate: Share = 0.5\n", ONE_OF_ITS_OWN)
    with pytest.raises(
        ConfigError, match=r'^method\[1\].label = "../damped" \(<string>\): may contain only letters'
    ):
        config.loads(TEXT)


ONE_OF_ITS_OWN = """    rate: Share = 0.5

    def label(self, name):
        return f"../{name}"
"""


def test_a_module_that_ends_the_process_is_broken_and_ends_nothing(site):
    edited(site / "orchard" / "trunk.py", "from torch import nn\n", "raise SystemExit(3)\n")
    with pytest.raises(ConfigError, match=r'^model.name = "trunk" .*: is broken: .*SystemExit: 3$'):
        config.loads(TEXT)


def test_it_is_listed_with_its_settings_and_a_broken_one_by_name(site):
    edited(site / "orchard" / "rows.py", "import numpy as np", "import numpie as np")
    listed = {**dict(catalogue("data")), **dict(catalogue("strategies")), **dict(catalogue("models"))}
    assert listed["source apples"].endswith("(crates).") and listed["trunk"].endswith("(rings).")
    assert listed["damped"] == "A client's update is taken back by a share of it (rate)."
    assert listed["partition rows"] == (
        "broken: orchard.rows:rows cannot be loaded: ModuleNotFoundError: No module named 'numpie'"
    )
    whole = TEXT.replace('partition = "rows", first = 0.5, ', "")
    assert config.loads(whole).data.partition == "iid", "nobody else is stopped"
    with pytest.raises(ConfigError, match=r'^data.partition = "rows" \(<string>\): is broken: .*numpie'):
        config.loads(TEXT)


def test_what_a_source_must_return_is_said(site):
    edited(site / "orchard" / "apples.py", "    return ImageSource(", "    return (")
    with pytest.raises(ConfigError, match=r'data.source = "apples": returned a tuple, but must return'):
        simulate(config.loads(TEXT), out=site.parent / "runs")


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        (
            "model.name=os:getcwd",
            'model.name = "os:getcwd": returned a str, but must return a torch.nn.Module',
        ),
        (
            "data.partition=os:getcwd",
            'data.partition = "os:getcwd": returned a str, but must return a Partition',
        ),
        (
            "data.augmentation=os:getcwd",
            'data.augmentation: "os:getcwd" returned a str, but must return an Augmentation',
        ),
    ],
)
def test_so_is_what_a_model_a_partition_and_an_augmentation_must(site, tmp_path, assignment, line):
    with pytest.raises(ConfigError) as refused:
        simulate(config.loads(TEXT, overrides=[assignment]), out=tmp_path / "runs")
    assert str(refused.value) == line


@pytest.mark.slow
def test_pip_installs_it_and_it_is_found(tmp_path, monkeypatch):
    project, folder = tmp_path / "project", tmp_path / "site"
    write_project(project)
    install_by_pip(project, folder)
    monkeypatch.syspath_prepend(str(folder))
    new_process()
    try:
        for kind, each in COMPONENTS.items():
            assert set(each) <= set(plugins.names(kind)) and plugins.broken(kind) == {}
        run_folder = simulate(config.loads(TEXT), out=tmp_path / "runs")
        assert re.search("sourness", (run_folder / "scorecard.json").read_text(encoding="utf-8"))
        assert sorted(FILES)[0] == "orchard/__init__.py" and (folder / "orchard").is_dir()
    finally:
        monkeypatch.undo()
        new_process()
