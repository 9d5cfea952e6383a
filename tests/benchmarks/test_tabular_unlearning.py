"""The tabular benchmark, on small data: every method beside a model that never had the class."""

import gzip
import json
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from scipy.stats import entropy

from benchmarks import tabular_unlearning, trees
from benchmarks.docs import END
from fedunlearn.errors import UserError
from tests.data.covertype_file import lines_of, rows_of

needs_xgboost = pytest.mark.skipif(
    find_spec("xgboost") is None, reason='needs xgboost, of the extra "tabular"'
)
MODELS = [pytest.param(name, marks=needs_xgboost if name == "xgboost" else ()) for name in trees.TREES]
FILTERS = {"mpru, proportional", "mpru, uniform", "mpru, constant", "mpru, learnt"}
COMMON = FILTERS | {"retrain", "retrain, another seed", "original"}
FURTHER = {"fine-tune: further rounds", "random-label: further rounds"}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(trees, "ROUNDS", 5)
    monkeypatch.setattr(trees, "FOREST", 5)


def run(tmp_path, *arguments):
    file = tmp_path / "rows.json"
    tabular_unlearning.main([*arguments, "--seeds", "1", "--json", str(file)])
    (rows,) = json.loads(file.read_text())["models"].values()
    return rows


@pytest.mark.parametrize("model", MODELS)
def test_a_file_in_covertypes_format(tmp_path, capsys, model):
    (tmp_path / "covtype.data.gz").write_bytes(gzip.compress(lines_of(rows_of(500, seed=1)).encode()))
    words = ["--data", "covertype", "--covertype", str(tmp_path), "--rows", "420", "--model", model]
    rows = run(tmp_path, *words)
    assert {row["method"] for row in rows} == COMMON | (FURTHER if model == "xgboost" else set())
    assert {(row["seed"], row["forgotten"]) for row in rows} == {(1, k) for k in range(7)}
    of = {method: [row for row in rows if row["method"] == method] for method in {r["method"] for r in rows}}
    assert all(row["kl_others"] == row["kl_forgotten"] == row["gap"] == 0 for row in of["retrain"])
    for method in FILTERS | {"retrain", "retrain, another seed"}:
        assert all(row["named"] == 0 for row in of[method])
    assert np.mean([row["named"] for row in of["original"]]) > 50
    kl = {method: np.mean([row["kl_forgotten"] for row in some]) for method, some in of.items()}
    assert max(kl[method] for method in FILTERS) < kl["original"]
    shown = capsys.readouterr().out
    assert "| covertype | retrain |" in shown and f"### {model}\n" in shown


def test_a_split_keeps_shares_and_moves_with_the_seed():
    table = tabular_unlearning.bundled("wine")
    (train, test), (other, _) = (tabular_unlearning.split(table, seed) for seed in (1, 2))
    assert train.size + test.size == table.size
    for label in range(3):
        assert (test.labels == label).sum() == round(0.3 * (table.labels == label).sum())
    rows = {tuple(row) for row in train.inputs}
    assert not rows & {tuple(row) for row in test.inputs}
    assert rows != {tuple(row) for row in other.inputs}


def test_the_retrained_model_has_no_column_for_the_class():
    seen = []

    class Told:
        def predict_proba(self, inputs):
            return np.tile([0.25, 0.75], (len(inputs), 1))

    def fit(table, classes, seed):
        seen.append((table, classes, seed))
        return Told()

    table = tabular_unlearning.bundled("iris")
    found = tabular_unlearning.without(table, 1, 3, fit, seed=4)
    assert found(table.inputs[:2]).tolist() == [[0.25, 0, 0.75]] * 2
    ((kept, classes, seed),) = seen
    assert (classes, seed, kept.size) == (2, 4, 100) and set(kept.labels) == {0, 1}
    assert (kept.inputs == table.inputs[table.labels != 1]).all()


def test_divergence_is_scipys_above_the_floor():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(4), size=9), rng.dirichlet(np.ones(4), size=9)
    p[:, 2] = 0
    p /= p.sum(axis=1, keepdims=True)
    assert tabular_unlearning.kl(p, q) == pytest.approx(np.mean(entropy(p, q, axis=1)))
    certain = np.eye(2)[[0]]
    assert tabular_unlearning.kl(certain, certain[:, ::-1]) == pytest.approx(np.log(1e6))


def test_the_table_goes_into_the_page(tmp_path, monkeypatch):
    assert tabular_unlearning.BEGIN in tabular_unlearning.PAGE.read_text()
    page = tmp_path / "page.md"
    page.write_text(f"before\n{tabular_unlearning.BEGIN}\nold\n{END}\nafter\n")
    monkeypatch.setattr(tabular_unlearning, "PAGE", page)
    run(tmp_path, "--data", "iris", "--model", "random-forest", "--write-docs")
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| iris | retrain |" in text and "| 3 |" in text


def test_mistakes_are_named(tmp_path, capsys, monkeypatch):
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path, "--data", "covertype")
    assert "needs --covertype DIR" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "xgboost", None)  # as if it were not installed
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path, "--data", "iris", "--model", "xgboost")
    assert "pip install -e '.[tabular]'" in capsys.readouterr().err
    table = tabular_unlearning.bundled("iris")
    with pytest.raises(UserError, match="a class has no row left to train on, of 4"):
        trees.random_forest(table, 4, 1)
