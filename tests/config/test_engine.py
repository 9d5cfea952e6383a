"""What of the engine is given, what is left to choose, and that choosing does not rename an experiment."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.config import Experiment, RayConfig, digest, loads, to_toml, with_engine
from fedunlearn.config.engine import EngineConfig
from fedunlearn.errors import ConfigError


def experiment(engine: str = "", numerics: str = "exact", overrides: tuple[str, ...] = ()) -> Experiment:
    text = f"""\
name = "engines"
targets = "each"
numerics = "{numerics}"
data.source = "digits"
model.name = "mlp"
train = {{ rounds = 4, lr = 1 }}
method = [{{ name = "puf" }}]
[engine]
{engine}
"""
    return loads(text, overrides=overrides)


def left_open(found: Experiment) -> set[str]:
    settings = ("workers", "batch_clients", "precision")
    return {name for name in settings if getattr(found.engine, f"given_{name}") is None}


NAMES = ("local", "ray", "auto")
GIVEN = {"workers": "workers = 3", "batch_clients": "batch-clients = 4", "precision": 'precision = "float64"'}


@pytest.mark.parametrize(
    ("name", "numerics", "expected"),
    [
        ("local", "exact", set()),
        ("local", "fast", set()),
        ("ray", "exact", {"workers"}),
        ("ray", "fast", {"workers"}),
        ("auto", "exact", {"workers"}),
        ("auto", "fast", {"workers", "batch_clients", "precision"}),
    ],
)
def test_only_what_somebody_will_choose_is_left_open(name: str, numerics: str, expected: set[str]) -> None:
    found = experiment(f'name = "{name}"', numerics)
    assert left_open(found) == expected
    assert (found.engine.workers, found.engine.batch_clients, found.engine.precision) == (1, 1, "float32")
    keys = set(re.findall(r"^(workers|batch-clients|precision) = ", to_toml(found), re.MULTILINE))
    assert keys == {"workers", "batch-clients", "precision"} - {key.replace("_", "-") for key in expected}
    assert loads(to_toml(found)) == found


@pytest.mark.parametrize("name", NAMES)
def test_what_is_given_is_not_open(name: str) -> None:
    for setting, line in GIVEN.items():
        found = experiment(f'name = "{name}"\n{line}', "fast")
        assert setting not in left_open(found)
        assert left_open(found) == left_open(experiment(f'name = "{name}"', "fast")) - {setting}
    everything = experiment("\n".join([f'name = "{name}"', *GIVEN.values()]), "fast").engine
    assert (everything.workers, everything.batch_clients, everything.precision) == (3, 4, "float64")


def test_the_engine_of_a_file_is_changed_by_an_assignment_before_anything_is_settled() -> None:
    assert left_open(experiment(overrides=("engine.name=ray",))) == {"workers"}
    table = '[engine.ray]\naddress = "head:6379"\ngpus-per-worker = 0'
    unused = experiment(f'device = "cuda"\n{table}')
    assert unused.engine.name == "local", "the cluster may be described although it is not used"
    assert unused.engine.ray == RayConfig(address="head:6379", gpus_per_worker=0.0)
    with pytest.raises(ConfigError, match=r"engine\.ray\.gpus-per-worker = 0\.0"):
        experiment(f'device = "cuda"\n{table}', overrides=("engine.name=ray",))


@given(st.sampled_from(["local", "ray"]), st.integers(1, 64), st.integers(1, 64), st.sampled_from(NAMES[1:]))
def test_a_choice_made_leaves_nothing_open_and_reads_back(
    chosen: Any, workers: int, batch_clients: int, asked: str
) -> None:
    open_experiment = experiment(f'name = "{asked}"', "fast")
    made = with_engine(
        open_experiment, name=chosen, workers=workers, batch_clients=batch_clients, precision="bfloat16"
    )
    assert left_open(made) == set()
    engine = made.engine
    assert (engine.name, engine.workers) == (chosen, workers)
    assert (engine.batch_clients, engine.precision) == (batch_clients, "bfloat16")
    assert loads(to_toml(made)) == made
    assert left_open(open_experiment) >= {"workers"}, "what was asked stays as it is"


def test_no_choice_changes_nothing_and_half_a_choice_gives_defaults_for_the_rest() -> None:
    asked = experiment('name = "auto"', "fast")
    assert with_engine(asked) == asked
    local = with_engine(asked, name="local")
    assert left_open(local) == set()
    assert local == experiment(numerics="fast")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"batch_clients": 8}, "engine.batch-clients = 8 (the chosen engine): must be 1 with"),
        ({"precision": "bfloat16"}, 'engine.precision = "bfloat16" (the chosen engine): must be'),
        ({"workers": 0}, "engine.workers = 0 (the chosen engine): must be >= 1"),
    ],
)
def test_a_choice_that_no_file_could_have_named_is_refused(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        with_engine(experiment('name = "auto"'), **choice)


def test_under_exact_numerics_no_choice_of_engine_and_workers_changes_the_digest() -> None:
    asked = [experiment(f'name = "{name}"') for name in NAMES]
    made = [with_engine(asked[2], name="ray", workers=7), with_engine(asked[2], name="local", workers=2)]
    cluster = experiment('name = "ray"\n[engine.ray]\naddress = "auto"\ngpus-per-worker = 0.5')
    assert len({digest(e) for e in [*asked, *made, cluster]}) == 1
    assert digest(experiment("batch-clients = 1")) == digest(asked[0]), "written or not, it is one by one"


def test_under_fast_numerics_the_digest_is_of_what_was_asked() -> None:
    asked = experiment('name = "auto"', "fast")
    stacked = with_engine(asked, name="local", batch_clients=8)
    assert digest(asked) == digest(experiment('name = "auto"\nworkers = 4', "fast"))
    assert digest(stacked) == digest(experiment("batch-clients = 8", "fast"))
    different = [
        asked,
        stacked,
        experiment("", "fast"),  # one by one
        experiment(""),
        with_engine(asked, name="local", batch_clients=8, precision="bfloat16"),
        experiment("compile = true", "fast"),
    ]
    assert len({digest(e) for e in different}) == len(different)


@pytest.mark.parametrize("engine", ["batch-clients = 16", "compile = true", 'precision = "bfloat16"'])
def test_fast_numerics_allow_each_alone_and_with_float64(engine: str) -> None:
    assert experiment(engine, "fast").engine != experiment("", "fast").engine
    if "precision" not in engine:
        assert experiment(f'{engine}\nprecision = "float64"', "fast").engine.precision == "float64"


def test_what_a_worker_takes_of_a_cluster() -> None:
    default = EngineConfig(threads_per_client=3)
    assert (default.cpus_per_worker, default.gpus_per_worker("cpu"), default.gpus_per_worker("cuda")) == (
        3,
        0,
        1,
    )
    given = EngineConfig(ray=RayConfig(cpus_per_worker=0.5, gpus_per_worker=0.25))
    assert (given.cpus_per_worker, given.gpus_per_worker("cpu"), given.gpus_per_worker("cuda")) == (
        0.5,
        0.25,
        0.25,
    )


def test_stacks_are_refused_where_masks_are_learnt() -> None:
    text = """\
name = "masks"
targets = "each"
numerics = "fast"
data = { source = "prostate-mri", directory = "x", partition = "site" }
model.name = "unet"
train = { rounds = 4, lr = 1 }
method = [{ name = "puf" }]
"""
    assert loads(text, overrides=["engine.batch-clients=1"]).engine.batch_clients == 1
    with pytest.raises(ConfigError) as refused:
        loads(text, overrides=["engine.batch-clients=4"])
    assert str(refused.value) == (
        "engine.batch-clients = 4 (--set engine.batch-clients=4): must be 1 with data.source = "
        '"prostate-mri"; only classifiers are trained in stacks'
    )
