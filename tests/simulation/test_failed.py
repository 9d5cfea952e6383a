"""A method whose forgetting fails has rows that say so and why, is computed anew, and takes no other down with it."""

import json
from dataclasses import replace

import pytest

from fedunlearn import plugins, unlearning
from fedunlearn.cli.main import main
from fedunlearn.report.page import write_report
from fedunlearn.report.scores import Scores
from fedunlearn.report.tables import markdown, scorecard_table
from fedunlearn.report.verdict import findings
from fedunlearn.simulation.runner import read_scorecard, simulate
from tests.e2e.tiny import TINY, tiny
from tests.report import cards
from tests.simulation.test_diverged import IN_TURN, POOLED, rows_of

BOOM = POOLED.replace("settings = {lr = 1e30, batch-size = 8}\n", "")
WHY = "failed: RuntimeError: boom (round 6)"


@pytest.fixture
def breaks(monkeypatch):
    """Have the function of gradient ascent do something else."""

    def set_to(function):
        sound = unlearning.method("gradient-ascent")
        monkeypatch.setitem(plugins.LOADED, ("routines", "gradient-ascent"), replace(sound, unlearn=function))

    # As one of fedunlearn's own, by its module: its source is in the key by its file, which is as it was.
    def boom(model, forget, retain, **_):
        raise RuntimeError("boom")

    boom.__module__ = "fedunlearn.unlearning.gradient_ascent"
    set_to(boom)
    return set_to


def records(folder):
    return {r["branch"]: r for r in json.loads((folder / "branches.json").read_text())}


def test_its_rows_say_why_and_hold_no_number_and_the_others_go_on(breaks, tmp_path):
    folder = simulate(tiny(text=BOOM), out=tmp_path)
    rows = rows_of(folder, "gradient-ascent")
    assert [(row["at"], row["round"]) for row in rows] == [("unlearned", 4), ("cap", 6)]
    for row in rows:
        assert row["failed"] is True
        assert set(row["metrics"].values()) == set(row["gap"].values()) == {None}
        assert row["metrics"].keys() == rows_of(folder, "retrain")[0]["metrics"].keys()
        assert row["reason"] == f"{WHY}; recovery: censored, forgetting failed"
        assert (row["recovered"], row["recovery_rounds"]) == (False, None)
        assert row["floor"]["forget_accuracy"] is not None
    for row in rows_of(folder, "fine-tune"):
        assert "failed" not in row, "a row that is sound is what it always was"
        assert row["metrics"]["forget_accuracy"] is not None


def test_it_is_computed_anew_and_after_the_mend_has_numbers(breaks, tmp_path, monkeypatch):
    def run():
        return simulate(tiny("cache=true", text=BOOM), out=tmp_path, fresh=True)

    run()
    again = records(run())
    assert {name for name, record in again.items() if not record["cached"]} == {"gradient-ascent-0-s1"}
    monkeypatch.undo()
    folder = run()
    assert all("failed" not in row for row in rows_of(folder, "gradient-ascent"))
    assert records(run())["gradient-ascent-0-s1"]["cached"]


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_branch_that_ends_before_its_last_attempt_has_failed_as_well(breaks, rounds, tmp_path):
    experiment = tiny("cache=true", f"recover.max-rounds={rounds}", text=BOOM)
    rows = rows_of(simulate(experiment, out=tmp_path), "gradient-ascent")
    assert [row["at"] for row in rows] == ["unlearned", "cap"]
    assert all(row["reason"].startswith(f"failed: RuntimeError: boom (round {3 + rounds})") for row in rows)
    folder = simulate(experiment, out=tmp_path, fresh=True)
    assert not records(folder)["gradient-ascent-0-s1"]["cached"]


def test_a_timeline_has_rows_of_every_request_and_no_end_that_is_measured(breaks, tmp_path):
    ascent = '[[method]]\nname = "local-routine"\nroutine = "gradient-ascent"\n'
    text = TINY.replace("targets = [[1]]\n", "") + ascent + IN_TURN
    rows = rows_of(simulate(tiny(text=text), out=tmp_path), "gradient-ascent")
    assert {row["request"] for row in rows} == {"request-1", "request-2", None}
    assert rows[-1]["at"] == "final"
    assert all(row["failed"] and row["reason"].startswith("failed: RuntimeError: boom") for row in rows)


def test_what_returns_no_model_fails_with_a_line_that_says_what_is_wanted(breaks, tmp_path):
    breaks(lambda model, forget, retain, **_: model.module)
    (row, *_) = rows_of(simulate(tiny(text=BOOM), out=tmp_path), "gradient-ascent")
    assert row["reason"].startswith("failed: TypeError: gradient-ascent: returned a ")
    assert "must return a fedunlearn.models.flat.FlatModel" in row["reason"]


def test_tables_and_report_say_it(breaks, tmp_path):
    folder = simulate(tiny(text=BOOM), out=tmp_path)
    card = read_scorecard(folder)
    (found,) = (each for each in findings(Scores(card)) if each.label == "gradient-ascent")
    assert (found.level, found.words, found.gap) == ("poor", WHY, None)
    cells = [str(cell) for column in scorecard_table(card).columns for cell in column.cells]
    assert cells.count("failed") == 2
    assert "| failed |" in markdown(card)
    assert markdown(card).count(WHY) == 2
    assert WHY.capitalize()[:7] + WHY[7:] in write_report(folder).read_text()


def test_one_seed_of_two_is_counted_beside_the_mean_of_the_other():
    rows = [
        cards.row("m", "cap", 3.0, seed=1),
        cards.row("m", "cap", None, seed=2, failed=True),
        cards.row("retrain", "cap", 0.0),
    ]
    (found,) = findings(cards.scores(*rows))
    assert found.words.endswith(". It failed in 1 of 2 cases")


@pytest.mark.slow
def test_the_command_says_it_after_the_table_and_ends_with_1(breaks, tmp_path, capsys, monkeypatch):
    file = tmp_path / "fails.toml"
    file.write_text(BOOM)
    monkeypatch.setattr("sys.argv", ["fedunlearn", "run", str(file), "--out", str(tmp_path / "runs")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    shown = capsys.readouterr().out
    table, line, end = shown.partition(f"gradient-ascent: forgetting {WHY}\n")
    assert line
    assert "retrain" in table
    assert end.startswith("report: ")
    (folder,) = (tmp_path / "runs").glob("tiny-*")
    assert {"scorecard.json", "scorecard.md", "report.html"} <= {path.name for path in folder.iterdir()}
