"""What ``flwr run`` sends to every node: the package and the experiments, and nothing else."""

import io
import tomllib
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.clientapp import ClientApp
from flwr.common.constant import FAB_MAX_SIZE
from flwr.serverapp import ServerApp

from fedunlearn import config
from fedunlearn.deployment.server_settings import ServerSettings
from fedunlearn.plugins import load_object
from tests.deployment.flower import REPOSITORY

PACKAGES = ("fedunlearn",)


@pytest.fixture(scope="module")
def app():
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["flwr"]["app"]


@pytest.fixture(scope="module")
def content():
    return build_fab_from_disk(REPOSITORY)


@pytest.fixture(scope="module")
def names(content):
    with zipfile.ZipFile(io.BytesIO(content)) as bundle:
        return set(bundle.namelist())


def test_every_module_and_experiment_is_in_it_and_no_other_file(names):
    """Flower drops what .gitignore names, ``test_*.py``, ``lib/``, ``build/`` and more, and says nothing."""
    code = {p for package in PACKAGES for p in (REPOSITORY / package).rglob("*.py")}
    experiments = set((REPOSITORY / "experiments").rglob("*.toml"))
    wanted = {p.relative_to(REPOSITORY).as_posix() for p in code | experiments}
    assert {"fedunlearn/data/__init__.py", "experiments/quickstart.toml"} < wanted, (
        "or it would prove nothing"
    )
    assert names - {".info/CONTENT"} == wanted | {"pyproject.toml", "README.md", "LICENSE"}


def test_it_is_as_small_as_flower_allows(content):
    assert len(content) < FAB_MAX_SIZE / 2


def test_its_apps_are_where_it_says(app):
    assert isinstance(load_object(app["components"]["serverapp"]), ServerApp)
    assert isinstance(load_object(app["components"]["clientapp"]), ClientApp)


def test_the_server_reads_every_setting_that_may_be_given_and_no_other(app):
    settings = ServerSettings.of(app["config"])
    assert {key.replace("-", "_") for key in app["config"]} == vars(settings).keys()
    given = {key: f"/somewhere/{key}" for key in app["config"] if key != "experiment"}
    found = vars(ServerSettings.of(app["config"] | given))
    assert found == vars(settings) | {k.replace("-", "_"): Path(v) for k, v in given.items()}


def test_without_settings_it_runs_the_quickstart(app):
    settings = ServerSettings.of(app["config"])
    assert config.load(settings.experiment).name == "quickstart"
    assert {value for key, value in vars(settings).items() if key != "experiment"} == {None}
