"""Forgetting a class of tabular data: MPRU's filters, and what else trees can do, beside a model retrained without.

::

    python -m benchmarks.tabular_unlearning                          # scikit-learn's own sets, xgboost: minutes
    python -m benchmarks.tabular_unlearning --model random-forest    # without the extra "tabular"
    python -m benchmarks.tabular_unlearning --data covertype --covertype DIR --rows 50000

Per seed the rows are split anew, 70 % to train on and 30 % to test, class by class, and every class is forgotten in
turn. All figures are of the test rows. The retrained model has never had a column for the class.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import docs
from benchmarks.machine import in_words, machine
from benchmarks.tables import markdown
from benchmarks.trees import TREES, Boosted, Fit
from fedunlearn.data.covertype import Table, covertype
from fedunlearn.errors import UserError
from fedunlearn.randomness import derive_seed, numpy_generator
from fedunlearn.unlearning.redistribution import VARIANTS
from fedunlearn.unlearning.tabular import Classifier, forget_classes

PAGE = docs.PAGE.with_name("unlearning-tabular.md")
BEGIN = "<!-- figures: begin (written by benchmarks/tabular_unlearning.py) -->"
PACKAGES = ("numpy", "scikit-learn", "xgboost", "xgboost-cpu")
TEST_SHARE = 0.3
CALIBRATION = 500
"""Rows that "learnt" learns from, at most."""
FLOOR = 1e-6
"""A forest says 0 of what it has not seen, and a divergence would be infinite: less than this counts as this."""
BUNDLED = {"digits": "load_digits", "wine": "load_wine", "iris": "load_iris"}
"""scikit-learn's own sets. breast_cancer has two classes: without one, every method gives the other all there is."""


@dataclass(frozen=True)
class Row:
    """One method, seed and class.

    Attributes
    ----------
    accuracy : float
        On test rows of the other classes, percent.
    gap : float
        Absolute difference of it to the retrained model's, points.
    named : float
        Share of test rows of the forgotten class that are still called so, percent.
    kl_others, kl_forgotten : float
        Mean over test rows of the other classes, or of the forgotten one, of KL(retrained ‖ model) in nats.
    seconds : float
        That the method took; of the original, its training.
    """

    data: str
    method: str
    seed: int
    forgotten: int
    accuracy: float
    gap: float
    named: float
    kl_others: float
    kl_forgotten: float
    seconds: float


def bundled(name: str) -> Table:
    """Return one of scikit-learn's own sets."""
    from sklearn import datasets

    inputs, labels = getattr(datasets, BUNDLED[name])(return_X_y=True)
    return Table(inputs.astype(np.float64), labels.astype(np.int64))


def split(table: Table, seed: int) -> tuple[Table, Table]:
    """Return rows to train on and to test, 70 and 30 % of each class, drawn by a seed."""
    rng, is_test = numpy_generator(seed, "test-split"), np.zeros(table.size, dtype=bool)
    for label in np.unique(table.labels):
        rows = rng.permutation(np.flatnonzero(table.labels == label))
        is_test[rows[: round(TEST_SHARE * len(rows))]] = True
    return table.select(~is_test), table.select(is_test)


def without(train: Table, forgotten: int, classes: int, fit: Fit, seed: int) -> Callable[[Any], Any]:
    """Train a model that never had the class; return its probabilities in all columns, 0 in that of the class."""
    stay = np.delete(np.arange(classes), forgotten)
    kept = train.select(train.labels != forgotten)
    model = fit(Table(kept.inputs, np.searchsorted(stay, kept.labels)), classes - 1, seed)

    def probabilities(inputs: Any) -> Any:
        found = np.zeros((len(inputs), classes))
        found[:, stay] = model.predict_proba(inputs)
        return found

    return probabilities


def filters(
    model: Classifier, train: Table, forgotten: int, seed: int
) -> Iterator[tuple[str, Callable[[], Callable[[Any], Any]]]]:
    """Yield MPRU with every R: a name, and what makes it."""
    mine = train.labels == forgotten
    others = numpy_generator(seed, "calibration").permutation(np.flatnonzero(~mine))[:CALIBRATION]
    read = {"nothing": None, "forget": train.select(mine), "retain": train.select(others)}
    for name, variant in VARIANTS.items():
        examples = read[variant.reads]
        make = partial(forget_classes, model, [forgotten], redistribution=name, examples=examples)
        yield f"mpru, {name}", lambda make=make: make().predict_proba


def further_rounds(
    model: Boosted, train: Table, forgotten: int, seed: int
) -> Iterator[tuple[str, Callable[[], Callable[[Any], Any]]]]:
    """Yield what an ensemble can do by growing on: on R alone, or on R and on F with random labels."""
    mine = train.labels == forgotten
    drawn = numpy_generator(seed, "labels").integers(len(model.classes_), size=int(mine.sum()))
    relabelled = train.labels.copy()
    relabelled[mine] = drawn
    for name, table in (
        ("fine-tune: further rounds", train.select(~mine)),
        ("random-label: further rounds", Table(train.inputs, relabelled)),
    ):
        yield name, lambda table=table: model.go_on(table).predict_proba


def kl(reference: Any, found: Any) -> float:
    """Return the mean over rows of KL(reference ‖ found) in nats; less than ``FLOOR`` in found counts as that."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = reference * (np.log(reference) - np.log(np.maximum(found, FLOOR)))
    return float(np.where(reference > 0, terms, 0.0).sum(axis=1).mean())


def forget_each(data: str, table: Table, fit: Fit, seed: int) -> Iterator[Row]:
    """Yield all rows of one seed: every class is forgotten in turn, by every method."""
    train, test = split(table, seed)
    classes = int(table.labels.max()) + 1
    begun = time.perf_counter()
    original = fit(train, classes, seed)
    trained = time.perf_counter() - begun
    for forgotten in range(classes):
        mine = test.labels == forgotten
        retrain = partial(without, train, forgotten, classes, fit)
        tried: list[tuple[str, Callable[[], Callable[[Any], Any]]]] = [
            ("retrain", partial(retrain, seed)),
            ("retrain, another seed", partial(retrain, derive_seed(seed, "floor") % 2**31)),
            ("original", lambda: original.predict_proba),
            *filters(original, train, forgotten, seed),
        ]
        if isinstance(original, Boosted):
            tried += further_rounds(original, train, forgotten, seed)
        reference = np.empty(0)
        for method, make in tried:
            begun = time.perf_counter()
            probabilities = make()
            seconds = trained if method == "original" else time.perf_counter() - begun
            p = probabilities(test.inputs)
            reference = p if method == "retrain" else reference
            named, best = p.argmax(axis=1), reference.argmax(axis=1)
            accuracy, retrained = (100 * float((said == test.labels)[~mine].mean()) for said in (named, best))
            yield Row(
                data=data,
                method=method,
                seed=seed,
                forgotten=forgotten,
                accuracy=accuracy,
                gap=abs(accuracy - retrained),
                named=100 * float((named == forgotten)[mine].mean()),
                kl_others=kl(reference[~mine], p[~mine]),
                kl_forgotten=kl(reference[mine], p[mine]),
                seconds=seconds,
            )


HEADINGS = (
    *("data", "method", "accuracy on the others, %", "gap to retrain, points", "still named, %"),
    *("KL to retrain, others", "KL to retrain, forgotten class", "seconds", "n"),
)
FIGURES = ("accuracy", "gap", "named", "kl_others", "kl_forgotten", "seconds")


def lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return mean ± standard deviation over seeds and classes, a line for each method."""
    found = []
    for data, method in dict.fromkeys((row.data, row.method) for row in rows):
        some = [asdict(row) for row in rows if (row.data, row.method) == (data, method)]
        figures = [_spread([float(row[name]) for row in some]) for name in FIGURES]
        found.append((data, method, *figures, str(len(some))))
    return [
        (("" if i and found[i - 1][0] == line[0] else line[0]), *line[1:]) for i, line in enumerate(found)
    ]


def _spread(values: Sequence[float]) -> str:
    mean, deviation = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
    digits = 1 if abs(mean) >= 10 else 2 if abs(mean) >= 0.1 else 3 if abs(mean) >= 0.01 else 4
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}" if mean or deviation else "0"


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    headline = str(__doc__).partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tabular_unlearning", description=headline)
    parser.add_argument("--data", nargs="+", choices=[*BUNDLED, "covertype"], default=list(BUNDLED))
    parser.add_argument("--covertype", type=Path, metavar="DIR", help="folder with covtype.data.gz")
    parser.add_argument("--rows", type=int, help="so many rows of Covertype, drawn by the seed; default: all")
    parser.add_argument("--model", nargs="+", choices=list(TREES), default=["xgboost"])
    parser.add_argument("--seeds", type=int, default=3, help="1 to SEEDS")
    parser.add_argument("--json", type=Path, help="also write every row to this file")
    parser.add_argument("--write-docs", action="store_true", help=f"put the table into docs/{PAGE.name}")
    chosen = parser.parse_args(arguments)
    try:
        rows = {model: list(_measured(chosen, TREES[model])) for model in chosen.model}
    except UserError as error:
        parser.exit(2, f"{error}\n")
    parts = [f"### {model}\n\n{markdown(HEADINGS, lines(some))}" for model, some in rows.items()]
    where = f"{in_words(machine(PACKAGES), PACKAGES)}; one thread, seeds 1 to {chosen.seeds}"
    text = "\n\n".join([*parts, f"{where}. By `{' '.join(_command(arguments))}`."])
    print(text)
    if chosen.json is not None:
        found = {model: [asdict(row) for row in some] for model, some in rows.items()}
        chosen.json.write_text(
            json.dumps({"machine": machine(PACKAGES), "models": found}, indent=1) + "\n", encoding="utf-8"
        )
    if chosen.write_docs:
        PAGE.write_text(
            docs.with_figures(
                PAGE.read_text(encoding="utf-8"), text, begin=BEGIN, page_name=f"docs/{PAGE.name}"
            ),
            encoding="utf-8",
        )


def _command(arguments: Sequence[str] | None) -> list[str]:
    words = sys.argv[1:] if arguments is None else arguments
    return ["python", "-m", "benchmarks.tabular_unlearning", *words]


def _measured(chosen: argparse.Namespace, fit: Fit) -> Iterator[Row]:
    for data in chosen.data:
        if data == "covertype":
            if chosen.covertype is None:
                raise UserError(
                    "--data covertype: needs --covertype DIR, the folder that holds covtype.data.gz"
                )
            table = covertype(chosen.covertype)
        else:
            table = bundled(data)
        for seed in range(1, chosen.seeds + 1):
            some = table
            if data == "covertype" and chosen.rows is not None:
                drawn = numpy_generator(seed, "rows").permutation(table.size)[: chosen.rows]
                some = table.select(np.sort(drawn))
            yield from forget_each(data, some, fit, seed)


if __name__ == "__main__":
    main()
