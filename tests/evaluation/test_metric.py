"""A metric is declared once: what is wrong is refused where it is defined, and everything else reads it."""

import re
import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import numpy as np
import pytest
import torch

from fedunlearn import plugins
from fedunlearn.cli.listing import catalogue
from fedunlearn.errors import ConfigError
from fedunlearn.evaluation import metric as registry
from fedunlearn.evaluation.declaration import Declaration
from fedunlearn.evaluation.evidence import Evidence, Retrained
from fedunlearn.evaluation.measures import measure
from fedunlearn.evaluation.metric import Metric, metric
from fedunlearn.evaluation.metrics import BUILT_IN, computed
from fedunlearn.evaluation.outputs import ModelOutputs
from fedunlearn.evaluation.scored import Unmeasurable
from tests.evaluation.builders import two_class

RIGHT = {"title": "a title", "unit": "%", "better": "retrain"}
TRAIN = two_class([1.0, -2.0, 3.0, 1.0], [0, 1, 0, 1])


@pytest.fixture(autouse=True)
def names(monkeypatch):
    """What a test defines is gone after it."""
    monkeypatch.setattr(registry, "_defined", dict(registry._defined))


def evidence(**changes):
    outputs = ModelOutputs(TRAIN, None, two_class([1.0, 2.0], [0, 1]))
    return Evidence(
        **{"outputs": outputs, "forget": np.array([0, 1]), "retain": np.array([2, 3]), "seed": 1, **changes}
    )


def defined(name="confidence", function=None, **changes):
    def own(evidence):
        """Mean confidence on the data to forget.

        More of it.
        """
        return float(evidence.forgotten.confidences.mean())

    return metric(name, **{**RIGHT, **changes})(function or own)


def test_a_metric_is_called_with_evidence_and_says_what_it_is():
    own = defined(tasks=("classification",))
    expected = np.mean([1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(2.0))])
    assert own(evidence()) == pytest.approx(expected)
    assert (own.name, own.title, own.unit, own.better) == ("confidence", "a title", "%", "retrain")
    assert own.description == "Mean confidence on the data to forget"
    assert own.needs == ("outputs",) and own.foreign


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"needs": ("labels",)}, "needs = ('labels',): must be a tuple of 'outputs', 'weights', 'retrained', "),
        ({"needs": "outputs"}, "needs = 'outputs': must be a tuple of"),
        ({"better": "down"}, "better = 'down': must be one of 'retrain', 'higher', 'lower'"),
        ({"tasks": ("regression",)}, "tasks = ('regression',): must be a tuple of 'classification', 'segmentation'"),
        ({"tasks": ()}, "tasks = (): must be a tuple of"),
        ({"show": ("wall",)}, "show = ('wall',): must be a tuple of 'terminal', 'markdown', 'page', 'plot'"),
        ({"show": ("terminal",)}, "heading = '': must be a word"),
        ({"unit": ""}, "unit = '': must say something"),
        ({"title": None}, "title = None: must say something"),
        ({"description": " "}, "description = ' ': must say something; give the function a docstring"),
        ({"name": "Forget-Accuracy"}, "the name must be lower-case letters"),
        ({"name": "mia_svc"}, "metrics.attacks:mia_svc already has the name 'mia_svc'; choose another"),
    ],
)  # fmt: skip
def test_a_wrong_declaration_is_refused_in_one_line_that_says_where(changes, words):
    with pytest.raises(ConfigError, match=re.escape(words)) as refused:
        defined(**changes)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("metric tests.evaluation.test_metric:defined.<locals>.own: ")
    assert changes.get("name") in (None, "Forget-Accuracy", "mia_svc")


def test_two_of_one_name_are_refused_and_the_same_one_again_is_not():
    defined()
    defined()

    def another(evidence):
        """Something else."""

    with pytest.raises(ConfigError, match="own already has the name 'confidence'"):
        defined(function=another)


@pytest.mark.parametrize(
    ("need", "reason"),
    [
        ("population", "there is no population of retrained models"),
        ("retrained", "there is no retrained model to compare with"),
        ("weights", "the model's weights are not kept"),
    ],
)
def test_what_lacks_a_need_is_null_with_a_reason_and_not_computed(need, reason):
    def never(evidence):
        """Never asked."""
        raise AssertionError

    found = measure(evidence(), [defined(needs=("outputs", need), function=never)])
    assert found == {"confidence": None} and found.reason == f"confidence: {reason}"


def test_what_is_there_is_no_reason():
    outputs, weights = evidence().outputs, torch.ones(3)
    whole = evidence(weights=weights, retrained=Retrained(outputs, weights))
    assert measure(whole, [defined(needs=("outputs", "weights", "retrained"))]).reasons == {}


def test_another_package_s_defect_costs_its_own_value_alone():
    def broken(evidence):
        """Divides by zero."""
        return 1 / 0

    def wrong(evidence):
        """Returns nothing."""

    found = measure(evidence(), [defined("broken", broken), defined("wrong", wrong), defined()])
    here = "tests.evaluation.test_metric failed"
    assert found.reasons["broken"] == f"{here}: ZeroDivisionError: division by zero"
    assert found.reasons["wrong"].startswith(f"{here}: TypeError")
    assert found["confidence"] is not None


def test_ours_is_a_defect(monkeypatch):
    def broken(evidence):
        """Divides by zero."""
        return 1 / 0

    broken.__module__ = "fedunlearn.evaluation.metrics.broken"
    with pytest.raises(ZeroDivisionError):
        measure(evidence(), [defined("broken", broken)])


def test_what_does_not_apply_is_not_named():
    assert measure(evidence(), [defined(applies=lambda evidence: False)]) == {}
    assert list(measure(evidence(), [defined(applies=lambda evidence: True)])) == ["confidence"]
    assert list(measure(evidence(), [defined(applies=lambda evidence: 1 / 0)])) == ["confidence"]


def test_everything_is_computed_once_for_each_evidence(monkeypatch):
    calls = []
    given = evidence()
    shared = evidence()

    def asked(evidence):
        """Asks for what others may ask for."""
        return evidence.once("shared", lambda: calls.append(evidence) or 1.0)

    first, second = (
        defined("first", asked),
        defined("second", lambda evidence: asked(evidence), description="x"),
    )
    measure(given, [first, second, first])
    measure(shared, [first, second])
    assert calls == [given, shared]
    assert given.forgotten is given.forgotten


def test_an_example_on_both_sides_is_refused():
    with pytest.raises(ValueError, match="both to be forgotten and retained"):
        evidence(retain=np.array([1, 2]))


def test_a_declaration_reads_back_from_plain_data_and_leaves_out_the_function():
    own = defined(needs=("outputs", "retrained"), retrained_value=0.0, marked=False, show=("page",))
    plain = own.as_dict()
    assert "compute" not in plain and plain["needs"] == ["outputs", "retrained"]
    back = Declaration.from_dict({**plain, "of_a_later_version": 1})
    assert not isinstance(back, Metric)
    assert {key: getattr(back, key) for key in plain} == {key: getattr(own, key) for key in plain}


@pytest.mark.parametrize(("unit", "gap"), [("%", "points"), ("mm", "mm"), ("0 to 1", ""), ("bits", "bits")])
def test_the_unit_of_a_gap(unit, gap):
    assert defined(unit=unit).gap_unit == gap


# -- which are computed ---------------------------------------------------------------------------------------


@pytest.fixture
def package(monkeypatch):
    """A package with metrics that nobody has installed."""
    module = ModuleType("their_metrics")
    monkeypatch.setitem(sys.modules, "their_metrics", module)
    monkeypatch.setattr(plugins, "LOADED", {})

    def theirs(evidence):
        """Something of theirs."""
        return 7.0

    theirs.__module__ = "their_metrics"
    module.theirs = defined("theirs", theirs, tasks=("classification",))
    module.number = 3
    return module


def test_an_experiment_computes_ours_of_its_task_and_what_it_names(package):
    ours = {name for name, each in BUILT_IN.items() if "classification" in each.tasks}
    assert set(computed("classification")) == ours
    assert list(computed("classification", ["their_metrics:theirs"])) == [
        *computed("classification"),
        "theirs",
    ]
    assert list(computed("classification", ["mia_svc"])) == list(computed("classification"))


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("theirs", 'must be "package.module:object", or a metric of `fedunlearn list metrics`'),
        ("mia_scv", 'did you mean "mia_svc"?'),
        (
            "nowhere.at.all:x",
            "is broken: nowhere.at.all:x cannot be loaded: ModuleNotFoundError: No module named",
        ),
        ("their_metrics:missing", "is broken: their_metrics:missing cannot be loaded: AttributeError: "),
        ("their_metrics:number", "is broken: their_metrics:number is no fedunlearn.evaluation.metric.Metric"),
        ("forget_dice", "is for segmentation, but the experiment is for classification; leave it out"),
    ],
)
def test_what_cannot_be_named_is_refused_by_its_place(package, reference, words):
    with pytest.raises(ConfigError, match=re.escape(words)) as refused:
        computed("classification", ["their_metrics:theirs", reference])
    assert str(refused.value).startswith(f'measures.metrics[2] = "{reference}": ')
    assert "\n" not in str(refused.value)


def test_one_with_the_name_of_ours_is_refused_even_if_it_came_first(package, monkeypatch):
    monkeypatch.setattr(registry, "_defined", {})
    package.theirs = defined("mia_svc", package.theirs.compute)
    with pytest.raises(ConfigError, match="there is already a 'mia_svc'; choose another name"):
        computed("classification", ["their_metrics:theirs"])


@pytest.fixture
def installed(package, monkeypatch):
    group = "fedunlearn.metrics"
    named = {"theirs": "their_metrics:theirs", "odd": "their_metrics:number"}
    points = {name: (EntryPoint(name, value, group),) for name, value in named.items()}
    monkeypatch.setattr(plugins, "_points", lambda kind: points)


def test_an_installed_one_is_computed_and_a_broken_one_stops_only_who_names_it(installed):
    assert "theirs" in computed("classification")
    assert "theirs" not in computed("segmentation")
    with pytest.raises(
        ConfigError, match=re.escape('measures.metrics[1] = "odd": is broken: their_metrics:number')
    ):
        computed("classification", ["odd"])


def test_an_installed_one_is_listed_and_so_is_why_another_is_broken(installed):
    lines = dict(catalogue("metrics"))
    assert lines["theirs"] == "Something of theirs (%; nearer to retrain's)"
    assert lines["odd"] == "broken: their_metrics:number is no fedunlearn.evaluation.metric.Metric"


# -- ours -----------------------------------------------------------------------------------------------------


def test_every_built_in_declares_everything():
    assert len(BUILT_IN) == 28
    for name, each in BUILT_IN.items():
        assert not each.foreign and each.name == name
        assert each.title and each.unit and each.description and each.tasks and each.needs, name
        assert not each.description.endswith(".")
        if "terminal" in each.show:
            assert each.heading, name
        if each.retrained_value is not None:
            assert "retrained" in each.needs and each.better != "retrain", name
    assert len({each.title for each in BUILT_IN.values()}) == len(BUILT_IN)
    assert len({each.description for each in BUILT_IN.values()}) == len(BUILT_IN)


def test_a_reason_is_a_reason_whoever_raises_it():
    def reluctant(evidence):
        """Cannot be had."""
        raise Unmeasurable("the data do not allow it")

    assert measure(evidence(), [defined(function=reluctant)]).reason == "confidence: the data do not allow it"
