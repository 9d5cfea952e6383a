"""A method whose weights become no numbers has rows that say so, and takes no other method down with it."""

import json
import math

import pytest

from fedunlearn.cli.main import main
from fedunlearn.clients.trainer import Routine
from fedunlearn.errors import RunError
from fedunlearn.report.page import write_report
from fedunlearn.report.scores import Scores
from fedunlearn.report.tables import comparison_table, markdown, scorecard_table
from fedunlearn.report.verdict import findings
from fedunlearn.runs.directory import RunDirectory
from fedunlearn.simulation.runner import read_scorecard, simulate
from tests.e2e.tiny import TINY, everything, request_states, tiny
from tests.report import cards

POOLED = TINY.replace("targets = [[1]]\n", "").replace("num-clients = 4", "num-clients = 1").replace(
    '[[method]]\nname = "puf"\n', ""
) + """
[[target]]
clients = [0]
samples = 0.3
[[method]]
name = "local-routine"
routine = "gradient-ascent"
settings = {lr = 1e30, batch-size = 8}
[[method]]
name = "local-routine"
routine = "fine-tune"
settings = {epochs = 1}
"""  # fmt: skip
"""Gradient ascent that overflows at once, between a method that does nothing and one that works."""
SOUND = POOLED.replace("lr = 1e30", "lr = 1e-4")

IN_TURN = """
[[forget]]
clients = [0]
at-round = 1
[[forget]]
clients = [2]
at-round = 3
"""
"""A timeline of two requests."""
LATER = """
[[method]]
name = "puf"
label = "later"
scale = 1e9
"""
"""Far away when it has forgotten, but finite; see ``overflowing``."""


def rows_of(folder, label):
    return [row for row in read_scorecard(folder)["rows"] if row["label"] == label]


@pytest.fixture
def overflowing(monkeypatch):
    """Whoever trains on weights that are far away ends in no numbers."""
    train = Routine.train

    def overflows(self, client, kind, config, tensors):
        far = self.model.vector.norm() > 1e6
        result = train(self, client, kind, config, tensors)
        if far:
            self.model.vector.fill_(math.nan)
        return result

    monkeypatch.setattr(Routine, "train", overflows)


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    return simulate(tiny("cache=true", text=POOLED), out=tmp_path_factory.mktemp("diverged"))


def test_its_rows_say_so_and_hold_no_number(diverged):
    rows = rows_of(diverged, "gradient-ascent")
    assert [(row["at"], row["round"]) for row in rows] == [("unlearned", 4), ("cap", 6)]
    for row in rows:
        assert row["diverged"] is True
        assert set(row["metrics"].values()) == set(row["gap"].values()) == {None}
        assert row["reason"].startswith("diverged in round 4: the routine's result holds NaN")
        assert (row["recovered"], row["recovery_rounds"]) == (False, None)
        assert row["floor"]["forget_accuracy"] is not None, "of the retrained models: they are sound"
    known = rows_of(diverged, "retrain")[0]["metrics"]
    assert rows[0]["metrics"].keys() == known.keys()


def test_the_others_are_what_they_are_without_it(diverged, tmp_path):
    sound = simulate(tiny(text=SOUND), out=tmp_path)
    for label in ("original", "retrain", "natural", "fine-tune"):
        mine, theirs = rows_of(diverged, label), rows_of(sound, label)
        assert mine
        assert [row["metrics"] for row in mine] == [row["metrics"] for row in theirs]
        assert not any("diverged" in row for row in mine), "a row that is sound is what it always was"


def test_no_weights_of_it_are_kept_and_its_request_is_not_called_forgotten(diverged):
    assert not list((diverged / "checkpoints").glob("gradient-ascent-*"))
    states = {branch: state for (branch, _), state in request_states(diverged).items()}
    assert states["gradient-ascent-0-s1"] == "failed"
    assert states["fine-tune-0-s1"] in ("forgotten", "forgotten-unrecovered")
    (record,) = (r for r in json.loads((diverged / "branches.json").read_text())
                 if r["branch"] == "gradient-ascent-0-s1")  # fmt: skip
    (request,) = record["requests"]
    assert (request["outcome"], request["ended_round"], record["last_round"]) == ("diverged", 4, 3)


def test_tables_and_report_say_it(diverged, tmp_path):
    card = read_scorecard(diverged)
    scores = Scores(card)
    (found,) = (each for each in findings(scores) if each.label == "gradient-ascent")
    assert (found.level, found.words) == ("poor", "diverged: its weights became NaN or infinite")
    assert found.gap is None
    for table, lines in ((scorecard_table(card), 2), (comparison_table([card]), 1)):
        cells = [cell for column in table.columns for cell in column.cells]
        assert [str(cell) for cell in cells].count("diverged") == lines
    assert "| diverged |" in markdown(card)
    page = write_report(diverged).read_text()
    assert "Diverged: its weights became NaN or infinite" in page


def test_one_seed_of_two_is_counted_beside_the_mean_of_the_other():
    rows = [
        cards.row("m", "cap", 3.0, seed=1),
        cards.row("m", "cap", None, seed=2, diverged=True),
        cards.row("retrain", "cap", 0.0),
    ]
    (found,) = findings(cards.scores(*rows))
    assert found.words.endswith(". It diverged in 1 of 2 cases")
    assert found.gap == 3.0


def test_it_is_taken_from_the_cache_like_any_branch(diverged):
    again = simulate(tiny("cache=true", 'name="again"', text=POOLED), out=diverged.parent)
    assert all(record["cached"] for record in json.loads((again / "branches.json").read_text()))
    assert rows_of(again, "gradient-ascent")[0]["diverged"]
    first, second = everything(diverged), everything(again)
    assert first[0] == second[0]
    assert first[1]["rows"] == second[1]["rows"]
    assert first[2] == second[2]


@pytest.mark.parametrize("finishes", [False, True], ids=["before its record", "after its record"])
def test_a_run_killed_around_its_end_resumes_to_the_same(diverged, finishes, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    finish = RunDirectory.finish_branch

    def killed(self, record):
        its = record["branch"] == "gradient-ascent-0-s1"
        if finishes or not its:
            finish(self, record)
        if its:
            raise Killed

    experiment = tiny("cache=false", text=POOLED)
    monkeypatch.setattr(RunDirectory, "finish_branch", killed)
    with pytest.raises(Killed):
        simulate(experiment, out=tmp_path)
    monkeypatch.undo()
    folder = simulate(experiment, out=tmp_path, resume=True)
    assert everything(folder)[1]["rows"] == everything(diverged)[1]["rows"]
    assert everything(folder)[2] == everything(diverged)[2]


def test_a_method_that_diverges_when_others_train_on_it_has_its_unlearned_row(tmp_path, overflowing):
    folder = simulate(tiny(text=TINY + LATER), out=tmp_path)
    unlearned, *_, cap = rows_of(folder, "later")
    assert (unlearned["at"], unlearned["round"], cap["at"], cap["round"]) == ("unlearned", 4, "cap", 6)
    assert "diverged" not in unlearned
    assert 0 <= unlearned["metrics"]["forget_accuracy"] <= 100
    assert cap["diverged"]
    assert cap["reason"].startswith("diverged in round 5: 3 of 3 clients failed (0, 2, 3), ")
    assert all(row["metrics"]["test_accuracy"] is not None for row in rows_of(folder, "natural"))


def test_a_timeline_ends_with_its_method_and_every_open_request(tmp_path, overflowing):
    text = TINY.replace("targets = [[1]]\n", "") + LATER + IN_TURN
    folder = simulate(tiny(text=text), out=tmp_path)
    rows = rows_of(folder, "later")
    assert rows[-1]["at"] == "final"
    assert rows[-1]["diverged"]
    assert [(row["at"], row["round"]) for row in rows if row.get("diverged")] == [
        ("unlearned", 4), ("cap", 6), ("final", 4),
    ], "the first request was unlearned in round 2, and its cap is after the second"  # fmt: skip
    states = {id_: state for (branch, id_), state in request_states(folder).items() if "later" in branch}
    assert states == {"request-1": "forgotten-unrecovered", "request-2": "failed"}
    assert not any("diverged" in row for row in rows_of(folder, "natural"))


@pytest.mark.parametrize("lr", [1e30, 1e38])
def test_without_an_original_there_is_nothing_to_compare_with(lr, tmp_path):
    with pytest.raises(RunError, match=r"^round \d: diverged, .*NaN or Inf; try a smaller learning rate"):
        simulate(tiny(f"train.lr={lr}"), out=tmp_path)


def test_the_command_succeeds(tmp_path, capsys, monkeypatch):
    file = tmp_path / "diverges.toml"
    file.write_text(POOLED)
    monkeypatch.setattr("sys.argv", ["fedunlearn", "run", str(file), "--out", str(tmp_path / "runs")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    shown = capsys.readouterr().out
    assert "gradient-ascent-0-s1: done, 30 % of the samples of client 0: diverged in round 4" in shown


def test_one_that_recovers_and_diverges_later_has_its_row_at_the_cap(tmp_path, overflowing):
    folder = simulate(tiny("recover.epsilon=100", text=TINY + LATER), out=tmp_path)
    rows = {row["at"]: row for row in rows_of(folder, "later")}
    assert set(rows) == {"unlearned", "recovered", "compare", "cap"}
    assert (rows["recovered"]["recovered"], rows["recovered"]["recovery_rounds"]) == (True, 1)
    assert not any("diverged" in rows[at] for at in ("unlearned", "recovered"))
    assert rows["cap"]["diverged"]
    assert (
        rows["cap"]["reason"]
        == "diverged in round 5: the weights hold NaN or Inf, after its requests had ended"
    )
