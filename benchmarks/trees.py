"""Tree models that classify rows, and what of unlearning can be done to them beside a filter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fedunlearn.data.covertype import Table
from fedunlearn.errors import UserError
from fedunlearn.unlearning.tabular import Classifier

ROUNDS = 100
"""Of boosting."""
FURTHER = 0.2
"""What goes on with a boosted ensemble adds so many times the rounds it has."""
FOREST = 200
"""Trees of a forest."""


class Boosted:
    """An xgboost ensemble; labels are columns.

    Its own loop, not ``XGBClassifier``: that one refuses to go on where a class is no longer among the labels.

    Parameters
    ----------
    booster
        What ``xgboost.train`` returned.
    classes : int
    parameters
        What it was trained with.
    """

    def __init__(self, booster: Any, classes: int, parameters: Mapping[str, Any]) -> None:
        self.booster = booster
        self.parameters = parameters
        self.classes_ = np.arange(classes)

    def predict_proba(self, inputs: Any) -> Any:
        """Return probabilities, (n, classes), in float32."""
        return self.booster.inplace_predict(inputs)

    def go_on(self, table: Table) -> Boosted:
        """Return the ensemble with further rounds, grown on these rows alone."""
        return _boost(table, self.parameters, rounds=round(FURTHER * ROUNDS), start=self.booster)


def _boost(table: Table, parameters: Mapping[str, Any], rounds: int, start: Any = None) -> Boosted:
    import xgboost  # lazily: not always there, and only needed here

    rows = xgboost.DMatrix(table.inputs, label=table.labels, nthread=1)
    booster = xgboost.train(dict(parameters), rows, num_boost_round=rounds, xgb_model=start)
    return Boosted(booster, parameters["num_class"], parameters)


def xgboost_trees(table: Table, classes: int, seed: int) -> Classifier:
    """xgboost: 100 rounds, depth 6, learning rate 0.3, histograms, 80 % of the rows per round."""
    parameters = {
        "objective": "multi:softprob",
        "num_class": classes,
        "max_depth": 6,
        "eta": 0.3,
        "subsample": 0.8,
        "tree_method": "hist",
        "nthread": 1,
        "seed": seed,
        "verbosity": 0,
    }
    try:
        return _boost(table, parameters, ROUNDS)
    except ImportError as error:
        raise UserError(
            '--model xgboost: needs xgboost, which is in the extra "tabular": '
            "in the clone, pip install -e '.[tabular]' -c constraints.txt"
        ) from error


def histogram_boosting(table: Table, classes: int, seed: int) -> Classifier:
    """scikit-learn's HistGradientBoostingClassifier: 100 rounds, 31 leaves, learning rate 0.1."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(max_iter=ROUNDS, early_stopping=False, random_state=seed)
    return _whole(model, table, classes)


def random_forest(table: Table, classes: int, seed: int) -> Classifier:
    """scikit-learn's RandomForestClassifier: 200 trees to the last leaf."""
    from sklearn.ensemble import RandomForestClassifier

    return _whole(RandomForestClassifier(n_estimators=FOREST, random_state=seed, n_jobs=1), table, classes)


def _whole(model: Any, table: Table, classes: int) -> Classifier:
    """Fit a classifier whose columns must be all the classes."""
    if len(np.unique(table.labels)) != classes:
        raise UserError(f"a class has no row left to train on, of {classes}; take more rows")
    fitted: Classifier = model.fit(table.inputs, table.labels)
    return fitted


Fit = Callable[[Table, int, int], Classifier]
"""(rows, number of classes, seed) → a classifier with a column for each class."""

TREES: Mapping[str, Fit] = {
    "xgboost": xgboost_trees,
    "hist-gradient-boosting": histogram_boosting,
    "random-forest": random_forest,
}
