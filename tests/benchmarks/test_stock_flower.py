"""The row of stock Flower does the work of plain FedAvg, leaves nothing behind, and fails in plain words."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import typer
from flwr.app import Context, RecordDict
from typer.testing import CliRunner

from benchmarks import flower_command, stock_flower
from benchmarks.flower_command import APP, FlowerCase
from benchmarks.process_tree import ProcessTree
from fedunlearn import models, workspace
from fedunlearn.errors import RunError
from fedunlearn.federation.local import LocalGrid
from fedunlearn.randomness import torch_generator

CLIENTS, ROUNDS, SEED = 4, 2, 3
# Clients of unequal sizes, some of more than one batch.
EXPERIMENT = """
name = "tiny"
targets = [[0]]
data.source = "synthetic-images"
data.partition = "dirichlet"
data.alpha = 1.0
data.validation = 0.0
data.image-size = 4
data.num-train = 160
federation.num-clients = 4
model = { name = "mlp", hidden = [8] }
train = { rounds = 1, batch-size = 32, lr = 0.05, lr-decay = 0.9, weight-decay = 1e-3, momentum = 0.5 }
method = [{ name = "natural" }]
recover.until = "max-rounds"
engine.device = "cpu"
"""


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "experiment.toml"
    path.write_text(EXPERIMENT)
    return path


@pytest.fixture
def case(experiment):
    return FlowerCase(num_clients=CLIENTS, rounds=ROUNDS, experiment=experiment, workers=2, seed=SEED)


def plain_fedavg(path):
    """Return the weights that FedAvg ends in, one parameter after the other, averaged in float64."""
    experiment = workspace.experiment_at(str(path))
    data = workspace.data_of(experiment, SEED)
    train = experiment.train
    model = models.build(experiment.model, num_classes=10, in_channels=1, image_size=4, seed=SEED)
    weights = [p.detach().clone() for p in model.parameters()]
    for t in range(1, ROUNDS + 1):
        sums, total = [torch.zeros(w.shape, dtype=torch.float64) for w in weights], 0
        for k in range(CLIENTS):
            images, labels = data.client(k)
            for p, w in zip(model.parameters(), weights, strict=True):
                p.data = w.clone()
            optimizer = torch.optim.SGD(
                model.parameters(), lr=0.05 * 0.9 ** (t - 1), momentum=0.5, weight_decay=1e-3
            )
            order = torch.randperm(len(labels), generator=torch_generator(SEED, "batches", t, k))
            for first in range(0, len(labels), train.batch_size):
                rows = order[first : first + train.batch_size]
                optimizer.zero_grad()
                F.cross_entropy(model(images[rows]), labels[rows]).backward()
                optimizer.step()
            for s, p in zip(sums, model.parameters(), strict=True):
                s += len(labels) * p.detach().double()
            total += len(labels)
        weights = [(s / total).float() for s in sums]
    return torch.cat([w.reshape(-1) for w in weights])


# -- the app, in this process ------------------------------------------------------------------------------


@pytest.fixture
def app_run(monkeypatch, tmp_path):
    """Return a function that runs the app's two halves over the grid in this process."""
    monkeypatch.syspath_prepend(APP)
    from stock_app import client_app, server_app

    def app_run(case):
        settings = flower_command.run_config(case) | {"output": str(tmp_path), "experiment": ""}
        if case.experiment:
            settings["experiment"] = str(case.experiment)
        with LocalGrid(client_app.app, case.num_clients, run_config=settings) as grid:
            server_app.main(grid, Context(1, 1, {}, RecordDict(), settings))
        return torch.from_numpy(np.load(tmp_path / "weights.npy"))

    return app_run


def test_the_app_ends_in_the_weights_of_plain_fedavg(app_run, case):
    data = workspace.data_of(workspace.experiment_at(str(case.experiment)), SEED)
    sizes = [len(data.client(k)[1]) for k in range(CLIENTS)]
    assert len(set(sizes)) > 1, "or a plain mean would do as well"
    assert max(sizes) > 32, "or the order of rows would not matter"
    torch.testing.assert_close(app_run(case), plain_fedavg(case.experiment), atol=1e-6, rtol=0)


def test_a_no_op_returns_what_it_was_sent(app_run):
    weights = app_run(FlowerCase(num_clients=3, rounds=2, noop_floats=5))
    torch.testing.assert_close(weights, torch.ones(5))


def test_a_failed_client_is_no_smaller_round(app_run, case, monkeypatch):
    from stock_app import task

    train = task.train

    def fail_for_client_2(**keywords):
        if keywords["client"] == 2:
            raise ArithmeticError("lost")
        return train(**keywords)

    monkeypatch.setattr(task, "train", fail_for_client_2)
    with pytest.raises(RuntimeError, match=r"round 1: 1 clients failed, .*(?s:.*)lost"):
        app_run(case)


# -- the command -------------------------------------------------------------------------------------------


def test_the_log_is_followed_by_rounds_and_kept_by_its_end():
    lines = [f"\x1b[92mINFO \x1b[0m:  [ROUND {i}/40]\n\n" for i in range(1, 41)]
    reported = []
    tail = stock_flower._follow(lines, reported.append)
    assert reported == [f"round {i} of 40" for i in range(1, 41)]
    assert tail == [f"INFO :  [ROUND {i}/40]" for i in range(26, 41)]


@pytest.fixture
def traces(monkeypatch):
    """Return the folders and process trees that runs make."""
    folders, trees = [], []
    mkdtemp = stock_flower.tempfile.mkdtemp

    def folder(**options):
        folders.append(mkdtemp(**options))
        return folders[-1]

    def tree():
        trees.append(ProcessTree())
        return trees[-1]

    monkeypatch.setattr(stock_flower.tempfile, "mkdtemp", folder)
    monkeypatch.setattr(stock_flower, "ProcessTree", tree)
    return folders, trees


def nothing_is_left(traces):
    folders, trees = traces
    assert len(folders) == len(trees) == 1
    return not Path(folders[0]).exists() and trees[0].find() == []


@pytest.mark.slow
def test_flwr_run_ends_in_the_weights_of_plain_fedavg(case, traces):
    reported = []
    found = stock_flower.run(case, report=reported.append)
    torch.testing.assert_close(found.weights, plain_fedavg(case.experiment), atol=1e-6, rtol=0)
    assert found.weights.dtype == torch.float32
    assert len(found.seconds) == ROUNDS
    assert min(found.seconds) > 0
    assert 0 < found.first_send < found.first_round < found.total
    assert found.first_round == pytest.approx(found.first_send + found.seconds[0])
    model = 4 * found.weights.numel()
    for size in (found.bytes_down, found.bytes_up):
        assert CLIENTS * model < size < CLIENTS * (model + 4096)
    assert found.peak_memory == sum(found.at_peak.values()) > 300 * 2**20
    assert {"flower-superlin", "flwr-simulation", "ray::ClientAppA"} <= found.at_peak.keys()
    assert 0 < found.watching <= 0.06
    assert reported == ["starting", "round 1 of 2", "round 2 of 2", "stopping"]
    assert nothing_is_left(traces)


@pytest.mark.slow
def test_a_run_that_fails_says_why_and_leaves_nothing(case, traces, monkeypatch):
    settings = flower_command.run_config(case)
    monkeypatch.setattr(stock_flower, "run_config", lambda case: settings | {"experiment": "/no/such.toml"})
    with pytest.raises(
        RunError, match=r"(?s)stock Flower ended with exit code .*gave no result.*/no/such\.toml"
    ):
        stock_flower.run(case, watch_memory=False)
    assert nothing_is_left(traces)


def test_a_run_that_takes_too_long_is_stopped(case, traces, monkeypatch):
    code = "print('here', flush=True); import signal; signal.pause()"
    monkeypatch.setattr(stock_flower, "command", lambda case, settings: [sys.executable, "-c", code])
    with pytest.raises(RunError, match=r"took more than 0\.1 s and gave no result"):
        stock_flower.run(case, timeout=0.1)
    assert nothing_is_left(traces)


def test_the_command_line_refuses_in_one_line():
    app = typer.Typer()
    app.command()(stock_flower.main)
    result = CliRunner().invoke(app, ["--rounds", "2"])
    assert result.exit_code == 2
    assert "noop-floats = 0: must be given" in result.output
