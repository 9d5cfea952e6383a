"""Components by name: ours, another package's, any object by its address; and what is said of those that are none."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint

import pytest

from fedunlearn import plugins
from fedunlearn.config.settings import NoSettings, PartitionSettings
from fedunlearn.errors import ConfigError


@dataclass(frozen=True)
class HalvesSettings(PartitionSettings):
    share: float = 0.5


def halves(num_clients, settings: HalvesSettings):
    """Two halves.

    More about them.
    """
    return num_clients, settings.share


def greedy(everything):
    return everything


def misfit(settings: NoSettings):
    return settings


nothing = 3
HERE = __name__


@pytest.fixture(autouse=True)
def no_memory(monkeypatch):
    monkeypatch.setattr(plugins, "LOADED", {})


@pytest.mark.parametrize("kind", [kind for kind in plugins.KINDS if plugins.names(kind)])
def test_all_of_ours_are_components_of_their_kind(kind):
    for name in plugins.KINDS[kind].built_in:
        assert plugins.find(kind, name) is plugins.find(kind, name)
        assert plugins.settings_type(kind, name)
        module = plugins.module_of(kind, name)
        assert module.startswith("fedunlearn.")
    assert plugins.broken(kind) == {}


def test_an_object_is_named_by_its_address_and_called_with_what_it_asks_for():
    address = f"{HERE}:halves"
    assert plugins.find("partitions", address) is halves
    assert plugins.settings_type("partitions", address) is HalvesSettings
    assert plugins.module_of("partitions", address) == HERE
    called = plugins.call(
        "partitions", address, num_clients=2, labels=[], settings=HalvesSettings(share=0.25)
    )
    assert called == (2, 0.25)
    assert plugins.summary(halves) == "Two halves."


@pytest.mark.parametrize(
    ("kind", "name", "why"),
    [
        ("partitions", f"{HERE}:nothing", f"is broken: {HERE}:nothing is no partition: it cannot be called"),
        (
            "partitions",
            f"{HERE}:misfit",
            f"is broken: {HERE}:misfit has settings that must derive from "
            "fedunlearn.config.settings.PartitionSettings",
        ),
        (
            "partitions",
            f"{HERE}:halfs",
            f"is broken: {HERE}:halfs cannot be loaded: AttributeError: module '{HERE}' has no attribute 'halfs'",
        ),
        (
            "models",
            "no.such:thing",
            "is broken: no.such:thing cannot be loaded: ModuleNotFoundError: No module named 'no'",
        ),
        (
            "strategies",
            f"{HERE}:halves",
            f"is broken: {HERE}:halves must be a subclass of fedunlearn.strategies.base.UnlearningStrategy",
        ),
        (
            "routines",
            f"{HERE}:halves",
            f"is broken: {HERE}:halves is no fedunlearn.unlearning.contract.Method",
        ),
        (
            "strategies",
            "pufff",
            'must be one of "puf", "natural", "not", "pga", "federaser", "local-routine", or '
            '"package.module:object"; did you mean "puf"?',
        ),
        ("strategies", 3, "must be a name, such as 'puf'"),
    ],
)
def test_what_is_no_component_is_refused_in_one_line(kind, name, why):
    with pytest.raises(ConfigError) as refused:
        plugins.find(kind, name)
    assert str(refused.value) == why


def test_who_asks_for_what_nobody_offers_is_told_what_there_is():
    with pytest.raises(ConfigError) as refused:
        plugins.call("models", f"{HERE}:greedy", num_classes=2, settings=None)
    assert str(refused.value) == (
        f"model '{HERE}:greedy': has a parameter 'everything'; it can have num_classes, settings"
    )


@pytest.fixture
def installed(monkeypatch):
    """Let other packages have entry points for partitions: name → values."""

    def install(**values):
        group = "fedunlearn.partitions"
        points = [EntryPoint(name, value, group) for name, each in values.items() for value in each]
        monkeypatch.setattr(
            plugins, "entry_points", lambda group: points if group.endswith("partitions") else []
        )
        plugins._points.cache_clear()

    yield install
    monkeypatch.undo()
    plugins._points.cache_clear()


def test_entry_points_come_after_ours_and_a_taken_name_stays_whose_it_is(installed):
    installed(
        halves=[f"{HERE}:halves", f"{HERE}:halves"],  # installed twice on the path: one all the same
        iid=[f"{HERE}:halves"],
        both=[f"{HERE}:halves", f"{HERE}:greedy"],
        missing=["no.such:thing"],
    )
    ours = tuple(plugins.KINDS["partitions"].built_in)
    assert plugins.names("partitions") == (*ours, "halves", "both", "missing")
    assert plugins.find("partitions", "halves") is halves
    assert plugins.module_of("partitions", "iid") == "fedunlearn.data.partitioners"
    assert plugins.broken("partitions") == {
        "iid": f"{HERE}:halves: there is already a 'iid'",
        "both": f"{HERE}:halves and {HERE}:greedy both have this name",
        "missing": "no.such:thing cannot be loaded: ModuleNotFoundError: No module named 'no'",
    }
    assert plugins.find("partitions", "dirichlet"), "nobody else is stopped"
