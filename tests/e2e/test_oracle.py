"""The framework and one slow, obvious file that shares no line with it end in the same weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedunlearn import config, models, plugins
from fedunlearn.config import Experiment
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.simulation.branches import branches
from fedunlearn.simulation.runner import simulate
from tests.oracles import puf_in_one_file as oracle

QUICKSTART = Path(__file__).parents[2] / "experiments" / "quickstart.toml"


def _oracle(experiment: Experiment, forget: list[int], exclude: list[int], rounds: int) -> list[torch.Tensor]:
    """Run the one-file oracle for as many rounds on the same settings, data and initial weights."""
    dtype = {"float32": torch.float32, "float64": torch.float64}[experiment.engine.precision]
    source = plugins.call("data", experiment.data.source, settings=experiment.data.source_settings)
    images = source.normalise(source.train_images, dtype)
    seed = experiment.seeds[0]
    model = models.build(
        experiment.model,
        num_classes=len(source.class_names),
        in_channels=images.shape[1],
        image_size=images.shape[-1],
        seed=seed,
    ).to(dtype)
    method, train = experiment.methods[0], experiment.train
    return oracle.run(
        images,
        source.train_labels,
        model,
        seed=seed,
        num_clients=experiment.federation.num_clients,
        alpha=experiment.data.partition_settings.alpha,
        validation=experiment.data.validation,
        rounds=min(train.rounds, rounds),
        recovery_rounds=max(0, rounds - train.rounds),
        forget=forget,
        exclude=exclude,
        mode=method.settings.mode,
        scale=method.settings.scale,
        retain_rate=method.settings.retain_rate,
        lr=train.lr,
        lr_decay=train.lr_decay,
        weight_decay=train.weight_decay,
        momentum=train.momentum,
        batch_size=train.batch_size,
        local_epochs=train.local_epochs,
        participation=experiment.federation.participation,
    )


def _difference(run: Path, branch: str, weights: list[torch.Tensor], rounds: range) -> float:
    checkpoints = Checkpoints(run / "checkpoints", branch)
    assert set(rounds) <= set(checkpoints.rounds())
    return max(float((checkpoints.load(t).vector - weights[t]).abs().max()) for t in rounds)


DIGITS = (
    "data.source=digits",
    "targets=[[3], [0, 7]]",
    "train.rounds=12",
    "recover.max-rounds=5",
    "cache=false",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("method[1].mode=regular", "method[1].scale=20"),
        ("method[1].mode=regular", "method[1].scale=3", "method[1].retain-rate=0.25"),
        ("method[1].mode=regular", "method[1].scale=3", "federation.participation=0.5"),
        ("train.momentum=0.9", "train.lr=0.02", "train.local-epochs=2"),
    ],
    ids=[
        "special",
        "regular",
        "regular, others at a quarter",
        "regular, half of the clients",
        "momentum, two epochs",
    ],
)
def test_float64_whole_run(settings: tuple[str, ...], tmp_path: Path) -> None:
    """Original, unlearning, recovery and retraining, every kept round, for one client and for two at once."""
    experiment = config.load(QUICKSTART, overrides=(*DIGITS, "engine.precision=float64", *settings))
    run = simulate(experiment, out=tmp_path)
    label = experiment.methods[0].label
    for number, clients in enumerate(experiment.target_sets(1)):
        weights = _oracle(experiment, list(clients), [], rounds=17)
        assert _difference(run, "original-s1", weights, range(12, 13)) <= 1e-9
        assert _difference(run, f"{label}-{number}-s1", weights, range(13, 18)) <= 1e-9
        retrained = _oracle(experiment, [], list(clients), rounds=17)
        assert _difference(run, f"retrain-{number}-s1", retrained, range(12, 18)) <= 1e-9
        assert _difference(run, f"{label}-{number}-s1", retrained, range(13, 14)) > 1e-3, "never unlearned"


@pytest.mark.slow
def test_float64_quickstart(tmp_path: Path) -> None:
    """The quickstart's own rounds and data: one of its targets, from the first round to the cap."""
    experiment = config.load(QUICKSTART, overrides=("engine.precision=float64", "cache=false"))
    target = experiment.target_sets(1)[0]
    run = _original_and_puf(replace(experiment, targets=(target,), methods=experiment.methods[:1]), tmp_path)
    rounds = experiment.train.rounds + experiment.recover.max_rounds
    weights = _oracle(experiment, list(target), [], rounds)
    assert (
        _difference(run, "original-s1", weights, range(experiment.train.rounds, experiment.train.rounds + 1))
        <= 1e-9
    )
    assert (
        _difference(run, "puf-special-2-0-s1", weights, range(experiment.train.rounds + 1, rounds + 1))
        <= 1e-9
    )


def test_float32_three_rounds(tmp_path: Path) -> None:
    experiment = config.load(
        QUICKSTART, overrides=("train.rounds=2", "recover.max-rounds=1", "cache=false", "targets=[[5]]")
    )
    run = simulate(experiment, out=tmp_path)
    weights = _oracle(experiment, [5], [], rounds=3)
    assert _difference(run, "original-s1", weights, range(2, 3)) <= 1e-6
    assert _difference(run, "puf-special-2-0-s1", weights, range(3, 4)) <= 1e-6


def _original_and_puf(experiment: Experiment, out: Path) -> Path:
    """Run only the two branches that the test looks at; recovery is then judged by the cap alone."""
    from fedunlearn.requests import Ledger
    from fedunlearn.server.serve import serve
    from fedunlearn.simulation.engines import open_grid

    path = out / "experiment.toml"
    path.write_text(config.to_toml(experiment))
    experiment = replace(experiment, recover=replace(experiment.recover, until="max-rounds"))
    experiment = config.with_engine(experiment, workers=2)
    with (
        Ledger(":memory:") as ledger,
        open_grid(experiment, str(path), 1) as grid,
    ):
        for branch in branches(experiment, 1):
            if branch.kind in ("original", "method"):
                fork = None
                if branch.fork_from:
                    fork = Checkpoints(out / "checkpoints", branch.fork_from).load(branch.first_round)
                store = Checkpoints(out / "checkpoints", branch.name, branch.keeps)
                serve(grid, experiment, branch, ledger=ledger, checkpoints=store, fork=fork)
    return out
