"""Everything in CONTRIBUTING.md works as it stands there: each file is written out, named, run and refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch

from fedunlearn import config, plugins, workspace
from fedunlearn.errors import ConfigError
from fedunlearn.evaluation import metric as metrics
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.runs.directory import RunDirectory
from fedunlearn.simulation.runner import read_scorecard, simulate
from fedunlearn.simulation.source_hash import UNKNOWN, component_source
from tests.federation.contributions import bits
from tests.server.tiny import NUM_CLIENTS, Federation, averaged, examples_of, update_of

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`(\w+\.py)`:\n\n```python\n(.*?)```$", PAGE, re.MULTILINE | re.DOTALL))
((EXPERIMENT_FILE, EXPERIMENT),) = re.findall(
    r"^`(\w+\.toml)`:\n\n```toml\n(.*?)```$", PAGE, re.MULTILINE | re.DOTALL
)
(PROJECT,) = (
    tomllib.loads(text)
    for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    if text.startswith("[project]")
)
GROUPS: dict[str, dict[str, str]] = PROJECT["project"]["entry-points"]
QUICKER = ["recover.max-rounds=1", "floor.retrainings=1"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with every file of the page, from which Python imports."""
    for name, text in {**FILES, EXPERIMENT_FILE: EXPERIMENT}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(plugins, "LOADED", {})
    monkeypatch.setattr(metrics, "_defined", dict(metrics._defined))
    yield tmp_path
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


@pytest.fixture
def strategy(folder: Path) -> Any:
    (address,) = GROUPS["fedunlearn.strategies"].values()
    return plugins.find("strategies", address)


def test_there_is_one_file_for_each_kind_but_tasks_and_each_is_short() -> None:
    assert set(GROUPS) == {f"fedunlearn.{kind}" for kind in plugins.KINDS} - {"fedunlearn.tasks"}
    named = [value.partition(":")[0] for points in GROUPS.values() for value in points.values()]
    assert sorted(named) == sorted(PROJECT["tool"]["setuptools"]["py-modules"])
    assert sorted(f"{name}.py" for name in named) == sorted(FILES)
    lengths = {name: len([line for line in text.splitlines() if line]) for name, text in FILES.items()}
    assert max(lengths.values()) <= 30, lengths


def test_the_experiment_names_all_of_them() -> None:
    for points in GROUPS.values():
        for value in points.values():
            assert f'"{value}"' in EXPERIMENT


def test_they_are_checked_and_run_and_every_one_of_them_has_a_part_in_it(folder: Path) -> None:
    experiment = config.load(folder / EXPERIMENT_FILE, overrides=QUICKER)
    ran = simulate(experiment, out=folder / "runs")
    rows = read_scorecard(ran)["rows"]
    assert {row["label"] for row in rows} == {"original", "retrain", "ServerMomentum", "fade"}
    assert all(0 <= row["metrics"]["forget_doubt"] <= 100 for row in rows)
    data = workspace.data_of(experiment, 1)
    assert data.class_names == ("level", "upright")
    assert 1 <= data.clients.sizes[0] < data.clients.sizes[-1], "the last client holds most"
    augmentation = workspace.recipe_of(experiment, data).augmentation
    assert augmentation is not None
    images, labels = data.client(0)
    dimmed, same = augmentation.apply(images, labels, torch.full((len(labels), 1), 0.5))
    assert torch.equal(dimmed, images / 2) and torch.equal(same, labels)
    assert workspace.new_model(experiment, data, 1).num_parameters == 64 * 8 + 8 + 8 * 2 + 2
    weights = RunDirectory(ran).checkpoints("fade-0-s1").load(5).vector
    faded = weights / RunDirectory(ran).checkpoints("original-s1").load(4).vector
    assert 0.15 < float((faded - 1).std()) < 0.25


def test_their_sources_are_in_the_key_of_the_cache(folder: Path) -> None:
    for group, points in GROUPS.items():
        for value in points.values():
            assert not component_source(group.removeprefix("fedunlearn."), value).startswith(UNKNOWN), value


def test_as_a_package_they_are_found_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    direct = config.load(folder / EXPERIMENT_FILE)
    installed = {
        group.removeprefix("fedunlearn."): {n: (EntryPoint(n, v, group),) for n, v in points.items()}
        for group, points in GROUPS.items()
    }
    monkeypatch.setattr(plugins, "_points", lambda kind: installed.get(kind, {}))
    text = EXPERIMENT
    for points in GROUPS.values():
        for name, value in points.items():
            text = text.replace(f'"{value}"', f'"{name}"')
    named = config.loads(text)
    assert named.model.settings == direct.model.settings
    assert [method.label for method in named.methods] == ["server-momentum", "fade"]
    for kind, points in installed.items():
        assert plugins.broken(kind) == {}
        for name, (point,) in points.items():
            assert plugins.find(kind, name) is plugins.find(kind, point.value)


WRONG = [
    ("method[1].beta=1", "method[1].beta = 1 (--set method[1].beta=1): must be >= 0 and < 1"),
    (
        "method[2].settings.strength=-1",
        "method[2].settings.strength = -1 (--set method[2].settings.strength=-1): must be >= 0",
    ),
    ("model.widht=4", "model.widht = 4 (--set model.widht=4): unknown key; did you mean model.width?"),
    ("data.count=1.5", "data.count = 1.5 (--set data.count=1.5): must be a whole number"),
    ("data.slope=-1", "data.slope = -1 (--set data.slope=-1): must be >= 0"),
    (
        "data.augmentation=dimmed:dim",
        'data.augmentation = "dimmed:dim" (--set data.augmentation=dimmed:dim): is broken: dimmed:dim cannot be '
        "loaded: AttributeError: module 'dimmed' has no attribute 'dim'; or several, joined by +",
    ),
    (
        'measures.metrics=["doubt:np"]',
        'measures.metrics[1] = "doubt:np": is broken: doubt:np is no fedunlearn.evaluation.metric.Metric',
    ),
]


@pytest.mark.parametrize(("assignment", "line"), WRONG, ids=[wrong.partition("=")[0] for wrong, _ in WRONG])
def test_a_wrong_setting_of_each_is_refused_in_one_line(folder: Path, assignment: str, line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        simulate(config.load(folder / EXPERIMENT_FILE, overrides=[assignment]), out=folder / "runs")
    assert str(refused.value) == line


# -- the strategy ---------------------------------------------------------------------------------------------


def test_the_strategy_s_steps_are_those_of_momentum_and_of_a_negated_update(strategy: Any) -> None:
    made = Federation()
    made.submit("r1", (2, 4), 2)
    made.run(strategy, 5, beta=0.5)
    w, others = [made.weights(t).double() for t in range(6)], [0, 1, 3, 5]
    steps = {
        t: averaged(w[t - 1], t, range(NUM_CLIENTS) if t < 3 else others) - w[t - 1] for t in (1, 2, 4, 5)
    }
    gone = sum(examples_of(k) * update_of(w[2], 3, k) for k in (2, 4)) / (examples_of(2) + examples_of(4))
    expected = [
        w[0] + steps[1],
        w[1] + steps[2] + 0.5 * steps[1],
        w[2] - gone,
        w[3] + steps[4],  # what was gained with the forgotten clients is not carried on
        w[4] + steps[5] + 0.5 * steps[4],
    ]
    for t, weights in enumerate(expected, start=1):
        torch.testing.assert_close(w[t], weights, rtol=0, atol=1e-6, msg=f"round {t}")


def test_the_strategy_goes_on_in_the_same_bits_after_an_interruption(strategy: Any, tmp_path: Path) -> None:
    def run(name: str, rounds: int) -> Federation:
        return Federation(checkpoints=Checkpoints(tmp_path / name, "tiny")).run(strategy, rounds)

    whole = run("whole", 6)
    run("parts", 3)
    assert bits(run("parts", 6).weights(6)) == bits(whole.weights(6))


# -- from a terminal ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_finds_them_in_the_current_directory(folder: Path, tmp_path: Path) -> None:
    program = (
        tmp_path / "bin" / "fedunlearn"
    )  # as pip installs it: Python looks in its folder, not in the current one
    program.parent.mkdir()
    program.write_text("from fedunlearn.cli.main import main\nmain()\n", encoding="utf-8")
    found = subprocess.run(
        [sys.executable, str(program), "check", EXPERIMENT_FILE],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )
    assert found.returncode == 0, found.stderr
    assert "ServerMomentum: forget and recover" in found.stdout and "narrow:narrow" in found.stdout


def test_the_commands_of_the_page_are_there() -> None:
    commands = re.findall(r"^\$ (.+?)(?:\s+#.*)?$", PAGE, re.MULTILINE)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    made = {command.split()[1] for command in commands if command.startswith("make ")}
    assert {"install", "test"} <= made <= targets | {"test-all"}
    for module in re.findall(r"python -m ((?:tests|fedunlearn)[\w.]+)", PAGE):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
