"""Starting from a file of weights: what a run tells of it, and that the cache knows it by its content.

An MLP stands in for the architecture that can start from a file.
"""

import io
import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from fedunlearn import plugins, workspace
from fedunlearn.errors import ConfigError
from fedunlearn.models.mlp import MLPSettings, mlp
from fedunlearn.models.weights_file import Naming
from fedunlearn.runs.directory import BRANCHES
from fedunlearn.simulation.forecast import forecast, show
from fedunlearn.simulation.progress import Progress
from fedunlearn.simulation.runner import simulate
from tests.e2e.tiny import tiny


class Listener(Progress):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@dataclass(frozen=True)
class StartingSettings(MLPSettings):
    naming: ClassVar[Naming] = Naming(body="", head="3.")
    weights: str | None = None


def starting(num_classes, in_channels, image_size, settings: StartingSettings):
    return mlp(num_classes, in_channels, image_size, settings)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setitem(plugins.LOADED, ("models", "mlp"), starting)
    return tmp_path / "w.safetensors"


def write(file, seed):
    draw = torch.Generator().manual_seed(seed)
    shapes = {"1.weight": (8, 64), "1.bias": (8,), "3.weight": (4, 8), "3.bias": (4,)}
    save_file({name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}, file)


def starting_from(file):
    return tiny(f"model.weights={file}", "cache=true", "train.rounds=1", "recover.max-rounds=1")


def run(file, out):
    """Run it anew and return what it told and, branch by branch, whether the cache had it."""
    listener = Listener()
    folder = simulate(starting_from(file), out=out, fresh=True, progress=listener)
    return listener.notes, [branch["cached"] for branch in json.loads((folder / BRANCHES).read_text())]


def test_the_cache_knows_the_file_by_its_content(file, tmp_path):
    write(file, 1)
    notes, cached = run(file, tmp_path / "runs")
    assert len(notes) == 1
    assert notes[0].startswith(f"mlp: weights of {file} (sha256 ")
    assert notes[0].endswith("…); head of the file")
    assert not any(cached)
    write(file, 2)
    others, cached = run(file, tmp_path / "runs")
    assert others != notes
    assert not any(cached)
    write(file, 1)
    again, cached = run(file, tmp_path / "runs")
    assert again == notes
    assert all(cached)


def test_a_file_that_does_not_fit_is_refused_before_a_run_is_begun(file, tmp_path):
    save_file({"1.weight": torch.ones(3)}, file)
    with pytest.raises(ConfigError, match="is of another architecture or incomplete: it lacks"):
        simulate(starting_from(file), out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_check_says_where_weights_are_from(file):
    write(file, 1)
    console = Console(width=300, file=io.StringIO())
    show(forecast(starting_from(file)), console)
    assert f"\nstart      mlp: weights of {file} (sha256 " in console.file.getvalue()


def test_a_client_need_not_have_the_file(file):
    experiment = starting_from(file)
    data = workspace.data_of(experiment, 1)
    assert not file.exists()
    with pytest.raises(ConfigError, match="cannot be read"):
        workspace.new_model(experiment, data, 1)
    assert workspace.model_of(experiment, data).num_parameters == 64 * 8 + 8 + 8 * 4 + 4
