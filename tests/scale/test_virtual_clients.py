"""100 000 clients over the data of 1 000: the same memory, the same files, every result there."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from fedunlearn import plugins, workspace
from fedunlearn.data import load_federated
from fedunlearn.report.page import write_report
from fedunlearn.requests import Ledger
from fedunlearn.simulation import forecast as forecasting
from fedunlearn.simulation.runner import read_scorecard
from tests.scale.virtual import SAMPLED, experiment_of, noise

ROOT = Path(__file__).parents[2]
FEW, MANY = 1000, 100_000


@dataclass(frozen=True)
class Ran:
    """What one process measured of itself, and the run it left."""

    measured: dict[str, float]
    folder: Path

    @property
    def lines(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").open()]


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> dict[int, Ran]:
    return {clients: _run(clients, tmp_path_factory.mktemp(f"runs-{clients}")) for clients in (FEW, MANY)}


def _run(clients: int, out: Path) -> Ran:
    command = [sys.executable, "-m", "tests.scale.virtual", str(clients), str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder,) = (path for path in out.iterdir() if (path / "scorecard.json").exists())
    return Ran(json.loads(done.stdout.splitlines()[-1]), folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "most"),
    [
        ("loaded", 8),  # measured: 1 to 2
        ("asked", 8),  # measured: 1 to 2
        ("allocated", 2),  # by Python and NumPy in a simulation; measured: 0.01
        ("peak", 100),  # of the process: the allocator's own share differs by up to 60 from one to the next
    ],
)
def test_memory_does_not_grow_with_the_number_of_clients(ran, moment, most):
    """A hundred times as many clients: an array entry each, no object (MB)."""
    few, many = (ran[clients].measured[moment] for clients in (FEW, MANY))
    assert many - few < most


@pytest.mark.slow
def test_a_run_is_there_in_seconds(ran):
    assert ran[MANY].measured["load_seconds"] < 5  # a tenth of a second on an idle processor


@pytest.mark.slow
def test_what_a_run_writes_grows_with_who_was_sampled_alone(ran):
    assert (ran[MANY].folder / "partition.json").stat().st_size < 200_000
    few, many = (ran[clients].lines for clients in (FEW, MANY))
    assert len(few) == len(many)
    losses = [line for line in many if line["split"] == "train"]
    assert len(losses) <= SAMPLED * len({(line["branch"], line["round"]) for line in losses})
    assert max(int(line["entity"].removeprefix("client-")) for line in losses) > MANY // 2
    with Ledger(ran[MANY].folder / "requests.sqlite") as ledger:
        plans = [plan.plan for name in ledger.branches() for plan in ledger.plans(name)]
    assert {len(plan["train"]) for plan in plans} == {SAMPLED, 0}, (
        "special mode: a round of the forgotten alone"
    )


@pytest.mark.slow
def test_a_client_of_three_rows_is_forgotten_and_measured(ran):
    rows = read_scorecard(ran[MANY].folder)["rows"]
    assert {row["label"] for row in rows} == {"original", "retrain", "puf-special-2", "natural"}
    for row in rows:
        assert row["metrics"]["forget_accuracy"] == pytest.approx(
            100 / 3 * round(row["metrics"]["forget_accuracy"] * 3 / 100), abs=1e-5
        )
        assert row["metrics"]["retain_accuracy"] > 0
        assert all(value is not None or row["reason"] for value in row["metrics"].values())
    (unlearned,) = (r for r in rows if (r["label"], r["at"]) == ("puf-special-2", "unlearned"))
    assert unlearned["cost"]["client_epochs"] == 1


@pytest.mark.slow
def test_the_report_is_as_small_as_any(ran):
    sizes = {clients: len(write_report(ran[clients].folder).read_bytes()) for clients in (FEW, MANY)}
    assert sizes[MANY] < 1.5 * sizes[FEW] < 1e6


@pytest.mark.parametrize("partition", ["iid", "pathological", "shards"])
def test_every_rule_deals_to_a_hundred_thousand(partition, monkeypatch):
    monkeypatch.setitem(plugins.LOADED, ("data", "synthetic-images"), noise)
    experiment = experiment_of(MANY, partition=partition)
    federated = load_federated(experiment.data, MANY, seed=1)
    assert federated.clients.sizes.sum() == len(federated.train_labels)
    assert (federated.counts().sum(axis=1) == federated.clients.sizes).all()
    assert federated.counts([7, 99_999]).tolist() == federated.counts()[[7, 99_999]].tolist()


def test_a_forecast_counts_the_rounds_of_a_hundred_thousand(monkeypatch):
    monkeypatch.setitem(plugins.LOADED, ("data", "synthetic-images"), noise)
    monkeypatch.setattr(forecasting, "_probe", lambda experiment: 1e-3)
    experiment = experiment_of(MANY, rounds=30)
    plan = forecasting.forecast(experiment)
    original = plan.branches[0]
    assert (plan.slots, original.client_epochs) == (SAMPLED, 30 * SAMPLED)
    sizes = workspace.data_of(experiment, 1).clients.sizes
    assert 30 * SAMPLED * sizes.min() <= original.examples <= 30 * SAMPLED * sizes.max()
