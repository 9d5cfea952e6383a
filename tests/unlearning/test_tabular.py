"""Any classifier with predict_proba forgets a class at its output, by the function that networks use."""

import copy
import pickle
from importlib.util import find_spec
from itertools import permutations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris, load_wine
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from fedunlearn.errors import ConfigError, UserError
from fedunlearn.unlearning import method
from fedunlearn.unlearning.mpru import MPRU
from fedunlearn.unlearning.redistribution import VARIANTS
from fedunlearn.unlearning.tabular import forget_classes
from tests.oracles import unlearning_outputs as oracle
from tests.unlearning import tiny

needs_xgboost = pytest.mark.skipif(
    find_spec("xgboost") is None, reason='needs xgboost, of the extra "tabular"'
)
KINDS = tuple(VARIANTS)
X, Y = load_wine(return_X_y=True)


def xgboost():
    from xgboost import XGBClassifier

    return XGBClassifier(n_estimators=5, max_depth=3, n_jobs=1, random_state=0)


MODELS = {
    "random-forest": lambda: RandomForestClassifier(n_estimators=10, max_depth=3, random_state=0),
    "hist-gradient-boosting": lambda: HistGradientBoostingClassifier(max_iter=5, random_state=0),
    "xgboost": xgboost,
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=needs_xgboost if name == "xgboost" else ()) for name in MODELS],
)
def fitted(request):
    return MODELS[request.param]().fit(X, Y)


def given_to(kind, classes, inputs=X, labels=Y):
    """Return the examples that a variant reads."""
    mine = np.isin(labels, classes)
    chosen = {"nothing": None, "forget": mine, "retain": ~mine}[VARIANTS[kind].reads]
    return None if chosen is None else (inputs[chosen], labels[chosen])


def forgotten(classifier, classes, kind="proportional"):
    return forget_classes(classifier, classes, redistribution=kind, examples=given_to(kind, classes))


# -- any classifier -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_class_has_nothing_and_the_others_have_all(fitted, kind):
    found = forgotten(fitted, [1], kind)
    q = found.predict_proba(X)
    assert q.shape == (len(X), 3) and (q[:, 1] == 0).all() and (q >= 0).all()
    np.testing.assert_allclose(q.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert set(found.predict(X)) == {0, 2}
    assert found.classes_.tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", ["proportional", "uniform", "constant"])
def test_probabilities_are_the_oracles(fitted, kind):
    p = fitted.predict_proba(X).astype(np.float64)
    mean = oracle.mean_without(p[Y == 1].tolist(), 1) if kind == "constant" else None
    row = {"proportional": None, "uniform": [0.5, 0, 0.5], "constant": mean}[kind]
    q = forgotten(fitted, [1], kind).predict_proba(X)
    for before, after in zip(p, q, strict=True):
        assert after.tolist() == pytest.approx(oracle.pushed_on(before, {1: row}, hops=1), abs=1e-9)


def test_the_classifier_stays_as_it_is(fitted):
    before = pickle.dumps(fitted)
    kept = copy.deepcopy(fitted).predict_proba(X)
    forgotten(fitted, [1], "learnt").predict_proba(X)
    assert pickle.dumps(fitted) == before
    np.testing.assert_array_equal(fitted.predict_proba(X), kept)


# -- several classes, names, mistakes -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["proportional", "uniform", "constant"])
def test_one_request_or_several_in_any_order(kind):
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(200, 3)), rng.integers(5, size=200)
    model = RandomForestClassifier(n_estimators=20, random_state=0).fit(inputs, labels)
    examples = {f: given_to(kind, [f], inputs, labels) for f in (0, 2, 3)}
    both = given_to(kind, [0, 2, 3], inputs, labels)
    at_once = forget_classes(model, [0, 2, 3], redistribution=kind, examples=both).predict_proba(inputs)
    for order in permutations([0, 2, 3]):
        found = model
        for f in order:
            found = forget_classes(found, [f], redistribution=kind, examples=examples[f])
        assert found.classifier is model
        np.testing.assert_allclose(found.predict_proba(inputs), at_once, rtol=0, atol=1e-12)


def test_labels_may_be_names():
    inputs, numbers = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[numbers]
    model = RandomForestClassifier(n_estimators=10, random_state=0).fit(inputs, names)
    found = forget_classes(
        model,
        ["versicolor"],
        redistribution="learnt",
        examples=(inputs[numbers != 1], names[numbers != 1]),
    )
    assert set(found.predict(inputs)) == {"setosa", "virginica"}
    with pytest.raises(UserError, match="there is no class 'rose'; the classifier has"):
        forget_classes(model, ["rose"])


def test_a_forest_that_is_certain_leaves_the_others_alike():
    model = RandomForestClassifier(n_estimators=3, bootstrap=False, max_features=None, random_state=0)
    model.fit([[0.0], [1.0], [2.0]], [0, 1, 2])
    assert model.predict_proba([[1.0]]).tolist() == [[0, 1, 0]]
    found = forget_classes(model, [1])
    assert found.predict_proba([[1.0]]).tolist() == [[0.5, 0, 0.5]]


def test_mistakes_are_named():
    model = RandomForestClassifier(n_estimators=2, random_state=0).fit(X, Y)
    with pytest.raises(ConfigError, match=r'^redistribution = "guess" \(MPRU\): must be one of "prop'):
        forget_classes(model, [1], redistribution="guess")
    with pytest.raises(UserError, match='"constant" needs examples of the classes to forget'):
        forget_classes(model, [1], redistribution="constant")
    with pytest.raises(UserError, match='"learnt" needs examples of the classes to keep'):
        forget_classes(model, [1], redistribution="learnt", examples=(X[:0], Y[:0]))
    with pytest.raises(UserError, match="no class is left"):
        forget_classes(model, [0, 1, 2])
    with pytest.raises(ConfigError, match=r"^steps = 0 \(MPRU\): must be >= 1$"):
        forget_classes(model, [1], redistribution="learnt", examples=(X, Y), steps=0)
    with pytest.raises(UserError, match=r"^mpru: there is no class 7; the classifier has \[0, 1, 2\]$"):
        forget_classes(model, [1], redistribution="learnt", examples=(X[:2], [0, 7]))
    with pytest.raises(UserError, match=r"^mpru: 3 labels and probabilities of shape \(5, 3\) for 3 classes"):
        forget_classes(model, [1], redistribution="learnt", examples=(X[:5], Y[:3]))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -0.1])
def test_what_is_no_probability_is_refused_and_not_shared_out(wrong):
    class Broken(Softmax):
        def predict_proba(self, inputs):
            found = np.full((len(inputs), 3), 1 / 3)
            found[2, 1] = wrong
            return found

    broken = Broken.__new__(Broken)
    broken.classes_ = np.arange(3)
    with pytest.raises(UserError, match=r"^mpru: the classifier gives example 2 of 5 no probabilities: "):
        forget_classes(broken, [1]).predict_proba(X[:5])
    with pytest.raises(UserError, match="example 2 of 5 no probabilities"):
        forget_classes(broken, [1], redistribution="learnt", examples=(X[:5], Y[:5]))


# -- the same function as for a network -----------------------------------------------------------------------


class Softmax:
    """A network as a classifier of rows."""

    classes_ = np.arange(tiny.CLASSES)

    def __init__(self, model):
        self.model = model

    def predict_proba(self, inputs):
        with torch.no_grad():
            return self.model.module(torch.from_numpy(inputs).view(-1, 1, 2, 3)).softmax(1).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_forgets_alike_either_way(kind):
    model, some = tiny.flat(), tiny.examples(60, 1)
    mine = torch.isin(some.labels, torch.tensor([0, 3]))
    forget, retain = (some.select(rows.nonzero().flatten()) for rows in (mine, ~mine))
    filtered = method("mpru")(
        model, forget, retain, settings=MPRU(redistribution=kind), generator=tiny.generator()
    )
    inputs, labels = some.images.reshape(60, -1).numpy(), some.labels.numpy()
    examples = given_to(kind, [0, 3], inputs, labels)
    found = forget_classes(Softmax(model), [0, 3], redistribution=kind, examples=examples)
    q = filtered.module(some.images).exp().detach().numpy()
    np.testing.assert_allclose(found.predict_proba(inputs), q, rtol=0, atol=1e-12)
