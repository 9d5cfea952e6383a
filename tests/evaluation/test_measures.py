"""Every measure by name, with reasons for the missing ones, on a model whose memory can be controlled."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from fedunlearn.evaluation.accuracy import accuracy
from fedunlearn.evaluation.measures import Measures
from fedunlearn.evaluation.metrics import BUILT_IN
from fedunlearn.evaluation.outputs import ModelOutputs, SplitOutputs, collect
from fedunlearn.evaluation.scored import Unmeasurable
from fedunlearn.randomness import torch_generator
from tests.evaluation.builders import DISTANCES, measure, to_retrain, two_class
from tests.evaluation.test_outputs import Data

FORGET, RETAIN = np.arange(40), np.arange(40, 200)


def noise_data():
    """Images without any signal: a model can only know the labels that it has seen."""
    generator = torch_generator(3, "synthetic")
    parts = []
    for size in (200, 60, 200):
        parts.append(torch.randn(size, 1, 12, 12, generator=generator))
        parts.append(torch.randint(3, (size,), generator=generator))
    return Data(*parts)


def trained(data, indices):
    """A linear model that learns its training examples by heart."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for _ in range(300):
        optimizer.zero_grad()
        chosen = torch.from_numpy(indices)
        nn.functional.cross_entropy(model(data.train_images[chosen]), data.train_labels[chosen]).backward()
        optimizer.step()
    return model, nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.fixture(scope="module")
def models():
    data = noise_data()
    everything, without = trained(data, np.arange(200)), trained(data, RETAIN)
    return {
        "original": (collect(everything[0], data), everything[1]),
        "retrain": (collect(without[0], data), without[1]),
    }


def measured(models, name, **changes):
    return measure(models[name][0], **{"forget": FORGET, "retain": RETAIN, "seed": 1, **changes})


def test_the_names_are_those_of_the_built_in_metrics(models):
    outputs, vector = models["original"]
    names = [*measured(models, "original"), *to_retrain(outputs, outputs, vector, vector)]
    assert names == [name for name in BUILT_IN if name in names]
    by_class = {"retain_test_accuracy", "forget_test_accuracy"}
    assert {name for name in BUILT_IN if "accuracy" in name} - by_class < set(names)
    assert by_class.isdisjoint(names), "both classes are retained"
    assert not [name for name in names if "dice" in name]
    assert set(DISTANCES) < set(BUILT_IN)


def test_every_number_is_in_its_range(models):
    for values in (measured(models, "original"), measured(models, "retrain")):
        assert values.reasons == {}
        assert values.reason is None
        for name, value in values.items():
            low, high = {"%": (0, 100), "nats": (0, 20)}[BUILT_IN[name].unit]
            assert low <= value <= high, name


def test_the_measures_see_what_the_model_remembers(models):
    original, retrain = measured(models, "original"), measured(models, "retrain")
    assert original["forget_accuracy"] == original["retain_accuracy"] == 100
    assert retrain["forget_accuracy"] < 60
    assert abs(retrain["forget_accuracy"] - retrain["test_accuracy"]) < 25
    for name in ("mia_svc", "mia_svc_matched", "mia_yeom", "mia_yeom_matched"):
        assert original[name] > retrain[name] + 20, name
    assert original["mia_tpr_at_1_fpr"] > retrain["mia_tpr_at_1_fpr"]
    assert original["mia_auc"] > retrain["mia_auc"] + 20
    assert abs(retrain["mia_auc"] - 50) < 15
    assert original["forget_loss"] < retrain["forget_loss"] - 0.5


def test_each_accuracy_is_of_its_own_examples(models):
    outputs, _ = models["retrain"]
    values = measured(models, "retrain")
    assert values["forget_accuracy"] == accuracy(outputs.train.take(FORGET))
    assert values["retain_accuracy"] == accuracy(outputs.train.take(RETAIN))
    assert values["validation_accuracy"] == accuracy(outputs.validation)
    assert values["test_accuracy"] == accuracy(outputs.test)


def test_measuring_twice_gives_the_same_and_the_seed_matters_to_the_attacks_alone(models):
    first = measured(models, "retrain", mia_samples=20)
    assert first == measured(models, "retrain", mia_samples=20)
    others = [measured(models, "retrain", mia_samples=20, seed=seed) for seed in range(2, 8)]
    changed = {name for other in others for name in first if other[name] != first[name]}
    assert "mia_svc" in changed
    assert changed <= {"mia_svc", "mia_svc_matched", "mia_auc", "mia_tpr_at_1_fpr"}


def test_what_is_missing_is_null_with_a_reason(models):
    outputs, _ = models["original"]
    values = measure(ModelOutputs(outputs.train, None, None), forget=FORGET, retain=RETAIN, seed=1)
    null = {name for name, value in values.items() if value is None}
    assert null == {
        "test_accuracy", "validation_accuracy", "test_loss", "mia_svc", "mia_svc_matched", "mia_auc",
        "mia_tpr_at_1_fpr",
    }  # fmt: skip
    assert set(values.reasons) == null
    assert values.reasons["validation_accuracy"] == "there is no validation data"
    assert values.reason == (
        "test_accuracy, test_loss, mia_svc, mia_svc_matched, mia_auc, mia_tpr_at_1_fpr: "
        "there is no test data; validation_accuracy: there is no validation data"
    )


def test_a_label_only_the_forgotten_have_cannot_be_matched():
    train = two_class([1.0, 2.0, 3.0, 1.0], [0, 1, 0, 0])
    outputs = ModelOutputs(train, None, two_class([1.0, 2.0], [0, 0]))
    values = measure(outputs, forget=np.array([0, 1]), retain=np.array([2, 3]), seed=1)
    assert values["forget_accuracy"] == values["retain_accuracy"] == 100
    for name in ("mia_svc_matched", "mia_yeom_matched", "mia_auc", "mia_tpr_at_1_fpr"):
        assert values[name] is None
        assert "has label 1, which the forgotten data have" in values.reasons[name]
    assert values["mia_yeom"] is not None


def test_a_diverged_model_is_null_throughout_and_says_so(models):
    outputs, _ = models["original"]
    broken = SplitOutputs(torch.full_like(outputs.train.logits, math.nan), outputs.train.labels)
    values = measure(ModelOutputs(broken, broken, broken), forget=FORGET, retain=RETAIN, seed=1)
    assert set(values.values()) == {None}
    assert set(values.reasons.values()) == {"the model's outputs are not finite"}


def test_an_infinite_value_is_null():
    values = Measures()
    values.take("test_loss", lambda: math.inf)
    assert values == {"test_loss": None}
    assert values.reason == "test_loss: the value is inf"


def test_a_defect_is_not_taken_for_a_missing_value():
    with pytest.raises(ValueError, match="a defect"):
        Measures().take("test_loss", lambda: (_ for _ in ()).throw(ValueError("a defect")))
    assert issubclass(Unmeasurable, ValueError)


def test_an_example_on_both_sides_is_refused(models):
    with pytest.raises(ValueError, match="both to be forgotten and retained"):
        measured(models, "original", retain=np.arange(39, 200))


def test_retrain_is_at_no_distance_from_itself_and_others_are(models):
    retrain, original = models["retrain"], models["original"]
    assert set(to_retrain(retrain[0], retrain[0], retrain[1], retrain[1]).values()) == {0.0}
    assert all(
        value > 1e-4 for value in to_retrain(original[0], retrain[0], original[1], retrain[1]).values()
    )


def test_values_are_plain_json(models):
    values = measured(models, "original")
    assert json.loads(json.dumps(values)) == values


def test_the_metrics_and_the_scorecard_load_neither_torch_nor_scikit_learn():
    code = (
        "import sys, fedunlearn.evaluation.metrics, fedunlearn.evaluation.scorecard\n"
        "print(sorted({'torch', 'sklearn', 'flwr', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
