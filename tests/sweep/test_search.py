"""A sweep run: what it reads, what it chooses, and that it goes on where it stopped."""

import json
import sys
from statistics import fmean

import pytest
import torch

from fedunlearn import config, workspace
from fedunlearn.cli.main import main
from fedunlearn.evaluation.metrics.distances import kl_to_retrain
from fedunlearn.evaluation.metrics.gaps import average_gap, tug_of_war
from fedunlearn.evaluation.outputs import collect
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.simulation.runner import simulate
from fedunlearn.sweep import page, search
from fedunlearn.sweep.file import Trial, load
from fedunlearn.sweep.outcome import References, Tried, best, read_references, read_trials
from tests.evaluation.builders import measure
from tests.report.parsed_page import parse
from tests.sweep.small import SWEEP, write


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    sweep = load(write(folder))
    path, found = search.run_sweep(sweep, out=folder / "runs")
    return sweep, path, found


def test_a_score_is_the_average_gap_on_the_validation_split(done):
    """Worked out from the checkpoints with the data as they are, test split and all."""
    sweep, path, found = done
    (run,) = path.parent.glob("find-fine-tune-*")
    experiment = sweep.experiment_of("fine-tune")
    expected = []
    for seed in (7, 8):
        data = workspace.data_of(config.load(path.parent.parent / "small.toml"), seed)
        model = workspace.new_model(experiment, data, 0)
        assert len(data.test_labels) == 60 != len(data.validation_labels) == 32
        forget = data.indices_of([2])
        assert len(forget) == round(0.5 * len(data.clients[1]))

        def four(branch, seed=seed, data=data, model=model, forget=forget):
            snapshot = Checkpoints(run / "checkpoints", branch).load(4)
            model.load(snapshot.vector, snapshot.buffers)
            outputs = collect(model.module, data)
            on_validation = type(outputs)(
                train=outputs.train, validation=outputs.validation, test=outputs.validation, task=outputs.task
            )
            found = measure(on_validation, forget=forget, retain=data.all_but([2]), seed=seed)
            correct = (outputs.validation.logits.argmax(1) == outputs.validation.labels).double().mean()
            assert found["test_accuracy"] == pytest.approx(100 * correct.item())
            return [
                found[name] for name in ("forget_accuracy", "retain_accuracy", "test_accuracy", "mia_svc")
            ]

        mine, retrained = four(f"fine-tune-2-0-s{seed}"), four(f"retrain-0-s{seed}")
        expected.append(fmean(abs(a - b) for a, b in zip(mine, retrained, strict=True)))
    assert found["fine-tune"][2].scores == pytest.approx(tuple(expected), abs=1e-5)
    assert found["fine-tune"][2].score == pytest.approx(fmean(expected), abs=1e-5)


def test_the_trials_data_have_no_test_split(tmp_path):
    sweep = load(write(tmp_path))
    experiment = sweep.experiment_of("puf-special-2")
    data = workspace.data_of(experiment, 7)
    assert torch.equal(data.test_images, data.validation_images)
    assert torch.equal(data.test_labels, data.validation_labels)


@pytest.mark.capability("sweep")
def test_it_writes_what_was_chosen(done):
    _, path, found = done
    content = json.loads((path / "trials.json").read_text())
    tuned = config.load(path / "tuned.toml")
    by_label = {method.label: method for method in tuned.methods}
    for entry in content["methods"]:
        means = [trial["score"]["mean"] for trial in entry["trials"]]
        assert means == pytest.approx([each.score for each in found[entry["label"]]])
        assert entry["chosen"] == means.index(min(means))
        settings = entry["trials"][entry["chosen"]]["settings"]
        method = by_label[f"{entry['label']}-tuned"]
        for key, value in settings.items():
            assert value == (
                method.settings.scale
                if key == "scale"
                else getattr(method.settings.settings, key.removeprefix("settings.").replace("-", "_"))
            )
    page = (path / "report.html").read_text()
    assert page.count('data-mark="trial ') == 8
    assert set(content) >= {"original", "floor"} and content["original"] > 0


def test_the_page_shows_what_was_chosen_beside_what_was_set(done):
    sweep, path, found = done
    page = parse((path / "report.html").read_text())
    (chosen,) = page.all("section", id="chosen")
    cells = [[cell.text for cell in row.all("td")] for row in chosen.all("tr")]
    rows = {first: others for first, *others in filter(None, cells)}
    for label, tried in found.items():
        best_of = search.chosen(sweep, found)[label]
        expected = [f"{tried[0].score:.2f}", f"{best_of.score:.2f}", f"{best_of.seconds:.1f}", "0"]
        assert rows[label][:4] == expected
    paths = {
        path.attributes["id"]: path.attributes["d"] for path in page.all("path") if "id" in path.attributes
    }
    round_ones = {}
    for mark in page.starting("data-mark", "trial "):
        place = mark.attributes["data-mark"].rpartition(" ")[2]
        for use in mark.all("use"):
            round_ones.setdefault(place == "0", set()).add("C" in paths[use.attributes["href"].lstrip("#")])
    assert round_ones == {True: {False}, False: {True}}, "a method's own settings have another shape"


def test_started_again_it_runs_nothing_and_finds_the_same(done, monkeypatch):
    sweep, path, found = done
    from fedunlearn.simulation import runner

    def compute(*_):
        raise AssertionError("a branch was computed again")

    monkeypatch.setattr(runner._Simulation, "_compute", compute)
    before = {p.name: p.read_bytes() for p in path.iterdir()}
    again, same = search.run_sweep(sweep, out=path.parent)
    assert again == path and {p.name: p.read_bytes() for p in path.iterdir()} == before
    assert {k: [t.scores for t in v] for k, v in same.items()} == {
        k: [t.scores for t in v] for k, v in found.items()
    }


@pytest.mark.slow
def test_it_goes_on_after_it_was_stopped(done, tmp_path, monkeypatch):
    sweep, _, found = done
    runs = []

    def once(*args, **kwargs):
        runs.append(args[0].name)
        if len(runs) == 2:
            raise KeyboardInterrupt
        return simulate(*args, **kwargs)

    monkeypatch.setattr(search, "simulate", once)
    with pytest.raises(KeyboardInterrupt):
        search.run_sweep(sweep, out=tmp_path)
    folder = search.folder_of(sweep, tmp_path)
    half = json.loads((folder / "trials.json").read_text())
    assert [entry["label"] for entry in half["methods"]] == ["puf-special-2"]
    _, whole = search.run_sweep(sweep, out=tmp_path)
    assert {k: [t.scores for t in v] for k, v in whole.items()} == {
        k: [t.scores for t in v] for k, v in found.items()
    }


def test_a_trial_that_diverges_has_no_score_and_is_not_chosen(tmp_path):
    text = SWEEP.replace("{low = 0.001, high = 0.1, log = true}", "[1e30]").replace(
        "trials = 3", "trials = 1"
    )
    _, found = search.run_sweep(load(write(tmp_path, text)), out=tmp_path / "runs")
    own, diverged = found["fine-tune"]
    assert diverged.trial.settings["settings.lr"] == 1e30 and own.score is not None
    assert diverged.score is None and diverged.reason.startswith("diverged in round 4")
    assert best(found["fine-tune"], average_gap) is own


def tried(number, *scores, reason=None):
    return Tried(Trial(number, {}, None), scores, 1.0, reason)


def test_the_best_is_the_first_of_the_smallest_and_one_that_failed_once_is_out():
    found = [tried(0, 3.0, 5.0), tried(1, 0.1, None), tried(2, 2.0, 4.0), tried(3, 4.0, 2.0)]
    assert best(found, average_gap).trial.number == 2
    assert best(found, tug_of_war).trial.number == 0
    assert best([tried(0, None), tried(1)], average_gap) is None


def test_the_references_are_of_the_scores_round():
    def row(label, at, value, floor, seed=1):
        metrics, floors = ({"average_gap": x, "tug_of_war": x / 10} for x in (value, floor))
        return {"label": label, "at": at, "seed": seed, "target": 0, "metrics": metrics, "floor": floors}

    rows = [
        row("original", "request", 5.0, 9.0),
        row("original", "request", 7.0, 9.0, seed=2),
        row("retrain", "cap", 0.0, 9.0),
        *(row(f"x-{n}", "unlearned", 3.0, 1.0) for n in range(3)),
        row("x-0", "unlearned", 3.0, 2.0, seed=2),
        row("x-0", "cap", 3.0, 8.0, seed=2),
    ]
    found = read_references({"rows": rows}, by=average_gap, at="unlearned")
    assert found == References(6.0, 1.5)
    assert read_references({"rows": rows}, by=average_gap, at="cap").floor == 8.5
    found = read_references({"rows": rows}, by=tug_of_war, at="unlearned")
    assert found == pytest.approx((0.6, 1 - 0.15))


def test_a_score_of_other_units_has_its_own_decimals_and_its_own_end_of_the_axis():
    assert [page.score_words(average_gap, value) for value in (0.004, 3.14159, None)] == ["0.00", "3.14", "–"]
    assert page.score_words(kl_to_retrain, 0.000123456) == "0.000123"
    assert page.unit_of(average_gap) == "points" and page.unit_of(tug_of_war) == "1 is retraining"
    assert page.unit_of(kl_to_retrain) == "nats"
    found = {"x": [tried(0, 0.0), tried(1, 0.0002), tried(2, 0.002)]}
    svg = page.strips(kl_to_retrain, found, {"x": found["x"][1]}, References(0.01, None))
    dots = parse(str(svg)).starting("data-mark", "trial x")
    places = {dot.attributes["data-mark"][-1]: float(dot.all("use")[0].attributes["x"]) for dot in dots}
    assert places["0"] == places["1"] < places["2"], "0 has no place of its own, and two thousandths have"


def test_the_ring_is_around_what_was_chosen_and_wider_than_a_dot(monkeypatch):
    drawings = []
    inline = page.inline
    monkeypatch.setattr(page, "inline", lambda drawn: (drawings.append(drawn), inline(drawn))[1])
    found = {"x": [tried(0, 3.0), tried(1, 1.0), tried(2, 2.0)]}
    page.strips(average_gap, found, {"x": found["x"][1]}, References(None, None))
    lines = drawings[0].axes.lines
    (ring,) = [line for line in lines if line.get_markerfacecolor() == "none"]
    dots = [line for line in lines if line is not ring]
    assert len(dots) == 3 and list(ring.get_xdata()) == [1.0]
    assert ring.get_markersize() > 1.5 * max(dot.get_markersize() for dot in dots)


def test_settings_are_a_line_and_none_are_those_of_the_experiment():
    assert page.settings_words({"scale": 2, "settings.lr": 0.01}) == "scale = 2, lr = 0.01"
    assert page.settings_words({}) == "as in the experiment"


def test_a_trial_without_a_row_has_no_score_and_says_so(tmp_path):
    trials = load(write(tmp_path)).trials("fine-tune")[:2]
    there = {"label": trials[0].method.label, "at": "unlearned", "metrics": {"average_gap": 2.0}}
    row = {**there, "cost": {"seconds": 3.0}, "reason": None}
    first, second = read_trials(trials, {"rows": [row]}, by="average_gap", at="unlearned", expected=1)
    assert (first.scores, first.score, first.seconds, first.reason) == ((2.0,), 2.0, 3.0, None)
    assert (second.scores, second.score) == ((None,), None)
    assert second.reason.startswith("no row at unlearned: ")
    failed = {
        **row,
        "label": trials[1].method.label,
        "at": "cap",
        "failed": True,
        "reason": "failed: boom (round 6)",
    }
    failed["metrics"] = {"average_gap": None}
    _, second = read_trials(trials, {"rows": [row, failed]}, by="average_gap", at="unlearned", expected=1)
    assert (second.scores, second.reason) == ((None,), "failed: boom (round 6)")


def test_the_command_says_what_it_found_and_what_comes_next(done, monkeypatch, capsys):
    sweep, path, found = done
    monkeypatch.setattr(search, "run_sweep", lambda *_, **__: (path, found))
    monkeypatch.setattr(sys, "argv", ["fedunlearn", "sweep", str(path.parent.parent / "find.toml")])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["", *found, "report", "next"]
    for line, (label, tried) in zip(lines[1:], found.items(), strict=False):
        own, chosen = (f"{each.score:.2f}" for each in (tried[0], search.chosen(sweep, found)[label]))
        assert line.startswith(f"{label}: {sweep.settings.by} {own} → {chosen}, ")
    assert lines[-1] == f"next: fedunlearn run {path / 'tuned.toml'}"


def test_after_ctrl_c_the_command_to_go_on_with_is_shown_and_does_not_start_over(
    tmp_path, monkeypatch, capsys
):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "run_sweep", stopped)
    words = ["sweep", str(write(tmp_path)), "--out", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", ["fedunlearn", *words, "--fresh"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert f"stopped; continue with: fedunlearn {' '.join(words)}\n" in capsys.readouterr().out
