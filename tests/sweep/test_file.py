"""The file of a sweep, and the experiments that come of it."""

import sys
from pathlib import Path

import pytest

from fedunlearn import config
from fedunlearn.cli.main import main
from fedunlearn.config.toml_tree import plain
from fedunlearn.errors import ConfigError
from fedunlearn.sweep.file import load
from fedunlearn.sweep.search import checked
from fedunlearn.unlearning.fine_tune import FineTune
from tests.sweep.small import EXPERIMENT, SWEEP, write


def test_the_trials_are_the_experiments_methods_on_other_seeds(tmp_path):
    sweep = load(write(tmp_path))
    assert sweep.labels == ("puf-special-2", "fine-tune")
    experiment = sweep.experiment_of("fine-tune")
    assert experiment.seeds == (7, 8) and experiment.measures.unseen == "validation"
    own, *tried = experiment.methods
    assert own.label == "fine-tune-0" and own.settings.settings == FineTune() and own.routine == "fine-tune"
    assert [method.label for method in tried] == ["fine-tune-1", "fine-tune-2", "fine-tune-3"]
    assert [method.settings.settings for method in tried] == [
        FineTune(**{key.removeprefix("settings."): value for key, value in trial.settings.items()})
        for trial in sweep.trials("fine-tune")[1:]
    ]
    # All else is as it was.
    left = {"name", "seeds", "method", "measures"}
    before, after = plain(sweep.experiment), plain(experiment)
    assert {k: v for k, v in after.items() if k not in left} == {
        k: v for k, v in before.items() if k not in left
    }
    scales = [method.settings.scale for method in sweep.experiment_of("puf-special-2").methods]
    assert scales[0] == 2.0 and len(set(scales)) == 4


def test_the_tuned_experiment_has_both_and_its_own_seeds(tmp_path):
    sweep = load(write(tmp_path))
    best = {"puf-special-2": sweep.trials("puf-special-2")[2], "fine-tune": sweep.trials("fine-tune")[1]}
    tuned = sweep.tuned(best)
    assert config.loads(config.to_toml(tuned)) == tuned
    labels = [method.label for method in tuned.methods]
    assert labels == ["puf-special-2", "puf-special-2-tuned", "fine-tune", "fine-tune-tuned", "natural"]
    assert tuned.methods[1].settings.scale == best["puf-special-2"].settings["scale"]
    assert tuned.methods[0::2] == sweep.experiment.methods
    assert tuned.seeds == (1,) and tuned.measures.unseen == "test" and tuned.target == sweep.experiment.target


def test_another_file_is_another_sweep(tmp_path):
    first = load(write(tmp_path)).digest
    assert load(write(tmp_path)).digest == first
    assert load(write(tmp_path, SWEEP.replace("trials = 3", "trials = 4"))).digest != first
    assert load(write(tmp_path, experiment=EXPERIMENT.replace("lr = 0.1", "lr = 0.2"))).digest != first


CLASSES = EXPERIMENT.replace("clients = [1]\nsamples = 0.5", "classes = [2]")


@pytest.mark.parametrize(
    ("old", "new", "experiment", "message"),
    [
        (
            "seeds = [7, 8]",
            "seeds = [1, 8]",
            EXPERIMENT,
            "seeds = [1, 8] ({}): must not be seeds of small.toml (1 is)",
        ),
        (
            "puf-special-2",
            "puf",
            EXPERIMENT,
            "space.puf ({}): small.toml has no such method; it has puf-special-2, ",
        ),
        ("trials = 3", "trials = 0", EXPERIMENT, "trials = 0 ({}): must be >= 1"),
        ("trials = 3", "trails = 3", EXPERIMENT, "trails = 3 ({}): unknown key; did you mean trials?"),
        (
            "trials = 3",
            'search = "grid"',
            EXPERIMENT,
            'space.puf-special-2.scale ({}): must be a list of values with search = "grid"',
        ),
        (
            "trials = 3",
            "",
            EXPERIMENT.replace("validation = 0.2", "validation = 0"),
            'experiment = "small.toml" ({}): must hold out data.validation > 0',
        ),
        (
            "trials = 3",
            "",
            EXPERIMENT.replace("[[target]]", "[[forget]]\nat-round = 2"),
            'experiment = "small.toml" ({}): must have targets or [[target]] entries',
        ),
        (
            "[space.fine-tune.settings]",
            "[space.fine-tune]",
            EXPERIMENT,
            "space.fine-tune.lr ({}): write it under [space.fine-tune.settings]",
        ),
        (
            "trials = 3",
            "target = [{classes = [3, 0]}]",
            CLASSES.replace("[2]", "[1, 3]"),
            "target[1].classes = [3, 0] ({}): small.toml forgets class 3; choose other classes to search on",
        ),
        (
            "trials = 3",
            "target = [{classes = [3, 1]}]",
            CLASSES.replace("[2]", "[1, 3]"),
            "target[1].classes = [3, 1] ({}): small.toml forgets class 1; choose other classes",
        ),
        (
            "trials = 3",
            "",
            CLASSES,
            "target[1].classes = [2] ({}): small.toml forgets class 2; choose other classes",
        ),
        (
            "trials = 3",
            "targets = [[0]]\ntarget = [{classes = [1]}]",
            EXPERIMENT,
            "target ({}): give either targets or [[target]] entries, not both",
        ),
    ],
)
def test_what_is_refused(tmp_path, old, new, experiment, message):
    assert old in SWEEP
    file = write(tmp_path, SWEEP.replace(old, new), experiment)
    with pytest.raises(ConfigError) as refused:
        load(file)
    assert str(refused.value).startswith(message.format(file))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("dimension", "message"),
    [
        ("epoch = [1, 2]", "epoch = 1 ({}): unknown key; did you mean space.fine-tune.settings.epochs?"),
        ("epochs = [1, 2.5]", "epochs = 2.5 ({}): must be a whole number"),
        ('epochs = ["half", 1]', 'epochs = "half" ({}): must be a whole number'),
        ("epochs = {low = 1.0, high = 5.0}", "epochs = 1.0 ({}): must be a whole number"),
        ("epochs = {low = 0, high = 5}", "epochs = 0 ({}): must be >= 1"),
        ("batch-size = [32, true]", "batch-size = true ({}): must be a whole number"),
        ("weight-decay = [0.0, -0.1]", "weight-decay = -0.1 ({}): must be >= 0"),
        ("momentum = {low = 0.5, high = 1.0}", "momentum = 1.0 ({}): must be >= 0 and < 1"),
        ("momentum = [nan]", "momentum = nan ({}): must be a finite number"),
    ],
)
def test_what_a_routine_does_not_take_is_refused_though_it_may_never_be_drawn(tmp_path, dimension, message):
    file = write(tmp_path, SWEEP.replace("epochs = [1, 2, 3]", dimension))
    with pytest.raises(ConfigError) as refused:
        load(file)
    assert str(refused.value) == f"space.fine-tune.settings.{message.format(file)}"


def test_what_a_strategy_does_not_take_is_refused_as_well(tmp_path):
    file = write(tmp_path, SWEEP.replace("low = 0.5", "low = -0.5").replace(", log = true}", "}"))
    with pytest.raises(ConfigError, match=r"^space\.puf-special-2\.scale = -0\.5 \(.*\): must be >= 0$"):
        load(file)


def test_an_experiment_is_no_sweep_and_a_sweep_no_experiment(tmp_path):
    file = write(tmp_path)
    with pytest.raises(
        ConfigError, match=r"^method .*: belongs to an experiment, which fedunlearn run takes"
    ):
        load(tmp_path / "small.toml")
    with pytest.raises(
        ConfigError, match=r"^space .*: belongs to a sweep; run this file with fedunlearn sweep"
    ):
        config.load(file)


SWEEPS = sorted((Path(__file__).parents[2] / "sweeps").glob("*.toml"))


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_the_sweeps_that_are_here_can_be_run(file):
    sweep = load(file)
    assert set(checked(sweep)) == {method.label for method in sweep.experiment.methods}, (
        "a method is not tried"
    )
    smoke = load(file, smoke=True)
    assert sum(len(experiment.methods) for experiment in checked(smoke).values()) == 2 * len(smoke.labels)


def test_the_command_says_what_it_would_run_and_what_is_wrong(tmp_path, capsys, monkeypatch):
    file = write(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fedunlearn", "sweep", str(file), "--check"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert capsys.readouterr().out.splitlines() == [
        "puf-special-2: 4 settings, forgets 8 times",
        "fine-tune: 4 settings, forgets 8 times",
        "forgets 16 times in all; seeds 7, 8",
    ]
    monkeypatch.setattr(sys, "argv", ["fedunlearn", "sweep", str(file), "--set", "by=luck"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    goals = "average_gap", "tug_of_war", "l2_to_retrain", "cosine_to_retrain", "kl_to_retrain"
    expected = ", ".join(f'"{goal}"' for goal in goals)
    assert capsys.readouterr().err == f'error: by = "luck" (--set by=luck): must be one of {expected}\n'
