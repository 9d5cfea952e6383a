"""The benchmark measures what it says: the same work on both sides, in turns, or no ratio at all."""

import json
from dataclasses import replace

import pytest
import torch
import typer
from typer.testing import CliRunner

from benchmarks import overhead
from benchmarks.overhead import CASES, BareLoop, Case, Measurement
from fedunlearn import config
from fedunlearn.errors import RunError
from fedunlearn.federation.local import LocalGrid

# 40 images are two batches, so that a wrong order of rows shows.
TINY = Case("tiny", "mlp", 3, 40, image_size=4, channels=1, goal=None, pairs=3, warm_up=2)


@pytest.fixture
def rounds(monkeypatch):
    """Return the list in which rounds are noted as they begin: A the framework's, B the bare loop's."""
    begun = []
    bare_round, send_and_receive = BareLoop.round, LocalGrid.send_and_receive

    def bare(self, number):
        begun.append(f"B{number}")
        bare_round(self, number)

    def framework(self, messages, **options):
        messages = list(messages)
        begun.append(f"A{messages[0].metadata.group_id}")
        return send_and_receive(self, messages, **options)

    monkeypatch.setattr(BareLoop, "round", bare)
    monkeypatch.setattr(LocalGrid, "send_and_receive", framework)
    return begun


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_framework_and_bare_loop_take_turns_and_end_in_the_same_weights(storage, rounds):
    found = overhead.measure(TINY, storage)
    assert rounds == ["A1", "B1", "B2", "A2", "A3", "B3", "B4", "A4", "A5", "B5"]
    assert found.difference <= 1e-6
    assert len(found.framework) == len(found.bare) == 3, "warm-up rounds are not counted"
    assert min(*found.framework, *found.bare) > 0


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("derive_seed", lambda *address: 0),  # other batches
        ("learning_rate", lambda settings, number: 2 * settings.lr),
    ],
)
def test_no_ratio_for_other_work(monkeypatch, name, wrong):
    monkeypatch.setattr(overhead, name, wrong)
    with pytest.raises(RunError, match=r"differ by .* after round 1, .* no ratio"):
        overhead.measure(TINY)


def test_no_ratio_for_weights_that_are_no_numbers(monkeypatch):
    monkeypatch.setattr(BareLoop, "vector", lambda self: torch.full((1,), torch.nan))
    with pytest.raises(RunError, match="differ by nan"):
        overhead.measure(TINY)


def test_the_ratio_is_the_median_over_pairs_and_lies_in_its_interval():
    # A machine that is three times slower for a while slows both of a pair.
    steady = Measurement(TINY, "memory", [1.2, 1.2, 3.6, 3.6, 1.2], [1.0, 1.0, 3.0, 3.0, 1.0], 0.0)
    assert steady.ratio == pytest.approx(1.2)
    assert steady.interval == pytest.approx((1.2, 1.2))
    spread = replace(steady, framework=[1.0, 1.1, 3.6, 3.9, 1.4])
    low, high = spread.interval
    assert 1.0 <= low < spread.ratio < high <= 1.4


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_client_has_the_images_that_the_table_says(case):
    experiment = config.loads(case.toml())
    assert experiment.data.num_train == case.num_clients * case.images_per_client
    assert (experiment.data.partition, experiment.data.validation) == ("iid", 0.0)
    assert (experiment.train.batch_size, experiment.train.local_epochs) == (32, 1)
    assert (experiment.federation.participation, experiment.engine.workers) == (1.0, 1)


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setitem(CASES, "tiny", TINY)
    app = typer.Typer()
    app.command()(overhead.main)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_table_json_and_markdown(run, tmp_path):
    as_json, as_markdown = tmp_path / "o.json", tmp_path / "o.md"
    result = run(
        *("--case", "tiny", "--pairs", "2", "--storage", "both"),
        *("--json", str(as_json), "--markdown", str(as_markdown)),
    )
    assert result.exit_code == 0, result.output
    assert "tiny" in result.output
    written = json.loads(as_json.read_text())
    assert written["machine"]["torch"] == torch.__version__
    assert [m["storage"] for m in written["measurements"]] == ["memory", "disk"]
    for m in written["measurements"]:
        assert m["pairs"] == len(m["seconds"]["framework"]) == len(m["seconds"]["bare"]) == 2
        assert m["interval"][0] <= m["ratio"] <= m["interval"][1]
    lines = as_markdown.read_text().splitlines()
    assert len({line.count("|") for line in lines[:4]}) == 1, "every row has a cell under every heading"
    assert torch.__version__ in lines[-1]


def test_an_unknown_case_is_named_with_those_there_are(run):
    result = run("--case", "lenet")
    assert result.exit_code == 2
    assert "lenet" in result.output
    assert "resnet18" in result.output


def test_other_work_is_a_failure_of_the_command(run, monkeypatch, tmp_path):
    monkeypatch.setattr(overhead, "derive_seed", lambda *address: 0)
    result = run("--case", "tiny", "--json", str(tmp_path / "o.json"))
    assert result.exit_code == 1
    assert "no ratio is reported" in result.output
    assert not (tmp_path / "o.json").exists()
