"""Whole experiments with a method whose unlearning takes three rounds: plans ahead, cap, scorecard."""

import json

import pytest

from fedunlearn.errors import ConfigError
from fedunlearn.requests import Ledger
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.server.plan import RoundPlan
from fedunlearn.server.plans_ahead import plans, unlearnings
from fedunlearn.simulation import capped_rounds
from fedunlearn.simulation.branches import branches
from fedunlearn.simulation.capped_rounds import check_cap
from fedunlearn.simulation.forecast import forecast
from fedunlearn.simulation.schedule import Schedule
from fedunlearn.simulation.scoring import SeedScoring
from tests.e2e.tiny import TIMELINE, TINY, card, checkpoints, everything, run, tiny

METHOD = '[[method]]\nname = "tests.server.three_rounds:ThreeRounds"\nlabel = "three"\n'
ALONE = 'method=[{name="tests.server.three_rounds:ThreeRounds", label="three", rounds=%d}]'


def with_three(text, *overrides):
    """Return an experiment whose last method takes three rounds."""
    return tiny("federation.num-clients=5", *overrides, text=text.replace("[recover]", METHOD + "[recover]"))


EXPERIMENTS = {
    "targets": with_three(TINY, "recover.max-rounds=5"),
    "drawn": with_three(TINY, "recover.max-rounds=5", "federation.participation=0.6"),
    # The second request comes while the first is being unlearned, and waits.
    "timeline": with_three(TIMELINE, "recover.max-rounds=6"),
    "judged": with_three(TIMELINE, "recover.max-rounds=6", 'recover.until="retrain-accuracy"'),
}


@pytest.fixture(scope="module", params=EXPERIMENTS)
def ran(request, tmp_path_factory):
    """Return an experiment and its finished run."""
    experiment = EXPERIMENTS[request.param]
    return experiment, run(experiment, tmp_path_factory.mktemp(request.param))


def three(experiment):
    """Return the branch of the method of three rounds."""
    (found,) = (b for b in branches(experiment, 1) if b.label == "three")
    return found


def recovery_rounds(record):
    """Return the rounds of recovery of a request with this record, by the rule and by its authors'."""
    experiment = tiny(ALONE % 3, "recover.max-rounds=6", 'recover.until="retrain-accuracy"')
    branch = three(experiment)
    scoring = object.__new__(SeedScoring)
    scoring._experiment, scoring._scale = experiment, lambda *_: None
    scoring._schedule = Schedule(experiment, 1, {branch.name: {"last_round": 9, "requests": [record]}})
    found = scoring._recovery(branch, branch.requests[0])
    return found["recovery_rounds"], found["recovery_rounds_authors"]


def records(folder, name):
    """Return what became of a branch's requests."""
    ended = {b["branch"]: b for b in json.loads((folder / "branches.json").read_text(encoding="utf-8"))}
    return ended[name]["last_round"], ended[name]["requests"]


# -- a run ---------------------------------------------------------------------------------------------------


def test_the_plans_ahead_are_the_plans_executed(ran):
    experiment, folder = ran
    with Ledger(folder / "requests.sqlite") as ledger:
        for branch in branches(experiment, 1):
            executed = [RoundPlan.from_dict(p.plan).to_dict() for p in ledger.plans(branch.name)]
            ahead = [p.to_dict() for p in plans(experiment, branch)]
            assert len(ahead) == branch.rounds
            expected = [{**p, "requests": e["requests"]} for p, e in zip(ahead, executed, strict=False)]
            assert executed == expected


def test_what_it_costs_is_what_was_forecast(ran):
    experiment, folder = ran
    if experiment.recover.until != "max-rounds":
        return  # it may end before its cap
    (found,) = (b for b in forecast(experiment).branches if b.branch.label == "three")
    with Ledger(folder / "requests.sqlite") as ledger:
        asked = [k for p in ledger.plans(found.branch.name) for k in (*p.plan["train"], *p.plan["forget"])]
    assert found.client_epochs == experiment.train.local_epochs * len(asked)
    assert found.checkpoints == len(Checkpoints(folder / "checkpoints", found.branch.name).rounds())


def test_the_rounds_of_an_unlearning_are_among_those_of_its_recovery(ran):
    experiment, folder = ran
    last, requests = records(folder, three(experiment).name)
    unlearned = {r["id"]: (r["at_round"], r["unlearned_round"], r["steps"]) for r in requests}
    if experiment.branching:
        assert unlearned == {"target-0": (3, 6, 2)}
        assert last == requests[0]["ended_round"] == 3 + experiment.recover.max_rounds
        return
    assert unlearned == {"request-1": (2, 5, 2), "request-2": (3, 8, 2)}
    assert requests[0]["outcome"] == "superseded" and requests[0]["ended_round"] == 8
    assert requests[1]["ended_round"] <= 3 + experiment.recover.max_rounds
    assert requests[1]["outcome"] in ("recovered", "capped")


def test_it_stands_in_the_scorecard_beside_the_others(ran):
    experiment, folder = ran
    rows = [(r["at"], r["round"]) for r in card(folder)["rows"] if r["label"] == "three"]
    last, _ = records(folder, three(experiment).name)
    if experiment.branching:
        assert rows == [("unlearned", 6), ("cap", 8)]
    else:
        assert rows[0] == ("unlearned", 5) and rows[-1] == ("final", last)
        assert ("unlearned", 8) in rows


def test_a_recovery_is_counted_from_the_first_round_of_the_unlearning():
    progress = {"outcome": "recovered", "recovered_round_authors": 9, "ended_round": 8, "attempts": 0}
    for steps, unlearned in ((0, 4), (2, 6)):
        record = {
            "id": "target-0",
            "unlearned_round": unlearned,
            **progress,
            **({"steps": steps} if steps else {}),
        }
        assert recovery_rounds(record) == (5, 6)


@pytest.mark.parametrize("name", ["targets", "judged"])
@pytest.mark.parametrize("nth", [1, 2, 4])
def test_interrupted_in_the_middle_it_ends_in_the_same_files(name, nth, tmp_path, monkeypatch):
    experiment = EXPERIMENTS[name]
    whole = run(experiment, tmp_path / "whole")
    save = Checkpoints.save
    left = [nth]

    class Killed(BaseException):
        pass

    def dying(self, snapshot):
        save(self, snapshot)
        if self._branch.startswith("three"):
            left[0] -= 1
            if not left[0]:
                raise Killed

    monkeypatch.setattr(Checkpoints, "save", dying)
    with pytest.raises(Killed):
        run(experiment, tmp_path / "parts")
    monkeypatch.setattr(Checkpoints, "save", save)
    again = run(experiment, tmp_path / "parts", resume=True)
    assert everything(again) == everything(whole)
    assert checkpoints(again)


# -- the cap -------------------------------------------------------------------------------------------------


REFUSED = "recover.max-rounds = 3 (experiment tiny): "
TAKES = "the rounds that 'three' takes to unlearn a request"


def told(experiment, ask=check_cap):
    with pytest.raises(ConfigError) as caught:
        ask(experiment)
    return str(caught.value)


@pytest.mark.parametrize("ask", [check_cap, forecast, lambda experiment: run(experiment, "nowhere")])
def test_a_cap_below_the_rounds_of_an_unlearning_is_refused(ask):
    assert told(tiny(ALONE % 5), ask) == f"{REFUSED}must be at least 5, {TAKES}"
    check_cap(tiny(ALONE % 5, "recover.max-rounds=5"))


def test_so_is_one_below_those_that_a_request_waits_besides():
    timeline = tiny(ALONE % 3, text=TIMELINE)
    assert [u.last_round for u in unlearnings(timeline, three(timeline))] == [5, 8]
    why = told(timeline)
    assert why.endswith(f"must be at least 5, {TAKES}, others' that are served first included")
    check_cap(tiny(ALONE % 3, "recover.max-rounds=5", text=TIMELINE))


def test_of_a_live_federation_one_request_is_looked_at():
    text = TINY.replace("targets = [[1]]\n", "").replace("[floor]\nretrainings = 1\n", "")
    live = tiny(ALONE % 4, "requests.window=1", 'recover.until="max-rounds"', text=text)
    assert "must be at least 4," in told(live)


def test_a_method_that_comes_to_no_end_is_refused(monkeypatch):
    monkeypatch.setattr(capped_rounds, "MOST_ROUNDS", 50)
    monkeypatch.setattr("fedunlearn.server.plans_ahead.MOST_ROUNDS", 50)
    why = "the method 'three' does not complete an unlearning within 50 rounds"
    assert told(tiny(ALONE % 100)) == REFUSED + why


def test_methods_of_one_round_need_no_more_than_one():
    check_cap(tiny("recover.max-rounds=1"))
