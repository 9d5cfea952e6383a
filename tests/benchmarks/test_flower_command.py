"""What ``flwr run`` is asked to do is what the case says, and nothing of the user's own Flower has a part in it."""

import tomllib

import pytest

from benchmarks import flower_command
from benchmarks.flower_command import APP, FlowerCase
from fedunlearn.errors import ConfigError

EXPERIMENT = """
name = "tiny"
targets = [[0]]
data = { source = "synthetic-images", image-size = 5, channels = 2, num-classes = 3, num-train = 40 }
federation.num-clients = 4
model.name = "mlp"
train = { rounds = 1, lr = 0.05, momentum = 0.5 }
method = [{ name = "natural" }]
recover.until = "max-rounds"
engine.device = "cpu"
"""


@pytest.fixture
def case(tmp_path):
    path = tmp_path / "experiment.toml"
    path.write_text(EXPERIMENT)
    return FlowerCase(num_clients=4, rounds=6, experiment=path, workers=2, seed=3)


def test_the_app_is_told_the_case_and_the_shapes_of_its_data(case):
    assert flower_command.run_config(case) == {
        "experiment": str(case.experiment),
        "num-clients": 4,
        "num-rounds": 6,
        "seed": 3,
        "noop-floats": 0,
        "num-classes": 3,
        "in-channels": 2,
        "image-size": 5,
    }


def test_every_setting_is_one_that_the_bundle_declares(case):
    """Flower refuses an override of what the app's own file does not name."""
    declared = tomllib.loads((APP / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    assert flower_command.run_config(case).keys() | {"output"} == declared.keys()


@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        ("federation.num-clients = 4", "federation.num-clients = 5", r"num-clients = 5 .*must be 4 here"),
        (
            "federation.num-clients = 4",
            "federation = { num-clients = 4, participation = 0.5 }",
            r"federation\.participation = 0\.5 \(.*experiment\.toml\): must be 1\.0 here",
        ),
        (
            'engine.device = "cpu"',
            'engine = { device = "cpu", precision = "float64" }',
            r"engine\.precision = 'float64' .*must be 'float32' here",
        ),
        ("momentum = 0.5", 'optimizer = "adam"', r"train\.optimizer = 'adam' .*must be 'sgd' here"),
    ],
)
def test_an_experiment_that_the_app_would_not_do_is_refused(case, line, instead, message):
    assert line in EXPERIMENT
    case.experiment.write_text(EXPERIMENT.replace(line, instead))
    with pytest.raises(ConfigError, match=message):
        flower_command.run_config(case)


@pytest.mark.parametrize("floats", [0, 7])
def test_training_or_a_no_op_but_one_of_them(case, floats):
    path = case.experiment if floats else None
    with pytest.raises(ConfigError, match=f"noop-floats = {floats}: must be given if, and only if"):
        flower_command.run_config(FlowerCase(num_clients=4, rounds=1, experiment=path, noop_floats=floats))


def test_every_thread_is_an_actor_of_one(case, tmp_path):
    line = flower_command.command(case, tmp_path / "run.toml")
    assert line[1:5] == ["run", str(APP), "local", "--stream"]
    options = dict(option.split("=") for option in line[-1].split())
    assert options == {
        "num-supernodes": "4",
        "client-resources-num-cpus": "1",
        "client-resources-num-gpus": "0.0",
        "init-args-num-cpus": "2",
        "init-args-num-gpus": "0",
    }


def test_the_command_knows_nothing_of_the_users_flower_and_of_no_proxy(monkeypatch, tmp_path):
    for name in ("FLWR_HOME", "FLWR_SUPERGRID_API_URL", "RAY_ADDRESS", "HTTPS_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "theirs")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    found = flower_command.environment(tmp_path)
    assert "theirs" not in found.values()
    assert found["OMP_NUM_THREADS"] == "1"
    assert found["FLWR_TELEMETRY_ENABLED"] == found["RAY_USAGE_STATS_ENABLED"] == "0"
    assert found["FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"] != found["FLWR_LOCAL_CONTROL_API_PORT"]
