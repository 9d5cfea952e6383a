"""Guard tests of destructive ideas, in federations that learn; and the benchmark that shows them at length."""

import json
from dataclasses import replace

import pytest

from benchmarks import honest_norms, hostile
from benchmarks.hostile import ALONE, HOSTILE, IN_FORGETTING, IN_ROUNDS, Job, Row, jobs, measured, rows
from benchmarks.hostile_clients import CHEERED, IDEAS, poisoned
from benchmarks.hostile_runs import experiment_of, federate
from fedunlearn import workspace

ROUNDS = 24
POINTS = 5.0
"""So much less accurate than the eight honest clients alone a short run under a robust rule may be at most."""


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def outcome(idea, rule="mean", ask=None):
    """Run one federation of ten with two hostile clients."""
    settings = (f"train.rounds={ROUNDS}", f'federation.aggregation="{rule}"', "train.lr=0.2")
    asking = {} if ask is None else {ask: HOSTILE}
    return federate(experiment_of(*settings), idea=idea, hostile=HOSTILE, ask_at=asking)


@pytest.fixture(scope="module")
def alone():
    """Return the accuracy of the eight honest clients without the two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        return outcome(ALONE).accuracy


@pytest.mark.quick(idea=1)
@pytest.mark.parametrize("idea", IN_ROUNDS)
def test_under_a_robust_rule_no_idea_takes_the_model_away_from_the_honest(idea, alone):
    found = outcome(idea, "trimmed-mean")
    assert found.accuracy > alone - POINTS
    assert found.requests == () and found.rounds == ROUNDS


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["median", "multi-krum"])
def test_nor_under_the_other_rules_the_worst_one(rule, alone):
    assert outcome("sign-flip-x8", rule).accuracy > alone - POINTS


def test_with_the_mean_the_worst_one_does_its_harm_and_the_grossest_is_refused(alone):
    """What the docs say of the default: bounds of length stop what is gross, and not what is within them."""
    assert outcome("sign-flip-x8").accuracy < 50
    gross = outcome("scale")
    assert gross.accuracy > alone - 1
    assert gross.refused == dict.fromkeys(HOSTILE, 1) and gross.refusals == 2 * ROUNDS


def test_class_bias_is_a_bias_and_leaves_the_data_as_they_were():
    data = workspace.data_of(experiment_of(), 1)
    before = data.train_labels.clone()
    with poisoned(data, HOSTILE):
        assert all((data.client(k)[1] == CHEERED).all() for k in HOSTILE)
        assert (data.client(2)[1] == before[data.clients[2]]).all()
    assert (data.train_labels == before).all()


@pytest.mark.quick(rule=1)
@pytest.mark.parametrize("rule", ["mean", "trimmed-mean"])
@pytest.mark.parametrize("idea", ["forget-weapon", "forget-poison"])
def test_a_forget_request_is_no_weapon(idea, rule, alone):
    """Its step is bounded, rolled back if it is too bad, and recovered from."""
    found = outcome(idea, rule, ask=ROUNDS // 2)
    assert found.accuracy > alone - POINTS
    assert set(found.requests) <= {"forgotten", "refused"}


@pytest.mark.parametrize("idea", ["forget-zeros", "forget-silent"])
def test_who_refuses_to_be_forgotten_does_not_end_as_forgotten(idea, alone):
    found = outcome(idea, ask=ROUNDS // 2)
    assert found.requests == ("excluded", "excluded")
    assert found.accuracy > alone - POINTS
    assert bool(found.refused) == (idea == "forget-zeros")


def test_who_sends_the_opposite_is_not_found_out():
    """docs/trust.md says so; should this change, so must the page."""
    assert outcome("forget-opposite", ask=ROUNDS // 2).requests == ("forgotten", "forgotten")


@pytest.mark.parametrize(("clients", "scale"), [(2, 2.0), (5, 1.0), (10, 2.0)])
@pytest.mark.quick(partition=1)
@pytest.mark.parametrize("partition", ["Dirichlet(0.1)", "IID"])
def test_honest_requests_are_served(partition, clients, scale):
    """And nobody's answer is refused; the benchmark tries more of them."""
    found = Job(partition, "mean", "honest", 3, ROUNDS, clients, scale).run()
    assert set(found.requests) <= set(hostile.SERVED) and len(found.requests) == 1
    assert found.refusals == 0


# -- the command -------------------------------------------------------------------------------------------


def test_every_idea_of_the_list_is_tried_and_honest_requests_in_number():
    wanted = list(jobs(100, 5))
    assert len(set(wanted)) == len(wanted)
    assert {job.idea for job in wanted} == set(IDEAS)
    assert sum(job.idea == "honest" for job in wanted) >= 50
    assert {job.clients for job in wanted if job.idea == "honest"} == set(range(2, 11))
    for partition in hostile.PARTITIONS:
        for idea in IN_ROUNDS:
            for rule in ("mean", hostile.RECOMMENDED):
                assert sum((j.partition, j.idea, j.rule) == (partition, idea, rule) for j in wanted) == 5


def test_it_goes_on_where_it_was_stopped(tmp_path, capsys):
    file = tmp_path / "found" / "out.jsonl"
    wanted = [Job("IID", "mean", idea, 1, 2) for idea in (ALONE, "scale", "honest")]
    first = measured(wanted[:2], file)
    capsys.readouterr()
    found = measured(wanted, file)
    assert "1/1, 0 min left: IID, mean, honest" in capsys.readouterr().err
    assert {job: found[job] for job in wanted[:2]} == first
    assert len(file.read_text().splitlines()) == 3
    text = hostile.document(found, "a command")
    assert "| mean | scale |" in text and "refused from round 1 on" in text and "By `a command`" in text
    assert "Of 1 honest requests" in text and "1 were served and 0 were not" in text


def test_how_uneven_honest_updates_are_is_measured_by_a_command(capsys):
    honest_norms.main(["--rounds", "2", "--seeds", "1"])
    partition, some, longest, so_far, shortest, examples, _ = next(
        line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if "IID" in line
    )
    assert (partition, some) == ("IID", "4") and float(examples) < 1.1
    assert float(longest) >= float(so_far) >= 1 >= float(shortest) > 0


def test_a_row_says_whether_it_did_harm():
    def made(accuracies, refused=None):
        return Row("IID", "median", "scale", accuracies, (95.0, 96.0, 97.0), refused, ("forgotten",))

    assert made((95.0, 95.0, 95.1)).harmless and not made((94.0, 95.0, 95.0)).harmless
    assert made((10.0, 10.0, 10.0), refused=3).harmless and not made((10.0, 10.0, 10.0), refused=4).harmless
    assert not replace(made((95.0, 95.0, 95.1)), diverged=1).harmless
    assert replace(made((95.0, 95.0, 95.0)), diverged=2).cells[-1] == "1 forgotten, 2 of 3 diverged"
    assert made((94.0, 95.0, 96.0), refused=2).cells == (
        *("median", "scale", "95.0 (94.0 to 96.0)", "+1.0"),
        "refused from round 2 on, 1 forgotten",
    )


def test_rows_are_over_the_seeds_and_leave_out_what_was_skipped():
    def found(accuracy, first):
        return {"accuracy": accuracy, "refused": first, "requests": [], "diverged": False, "seconds": 1.0}

    one, two, three = (Job("IID", "mean", ALONE, seed, 5) for seed in (1, 2, 3))
    (row,) = rows(
        {one: found(90.0, {"0": 1, "1": 2}), two: found(92.0, {"0": 4, "1": 1}), three: {"skipped": "x"}}
    )
    assert row.accuracies == row.alone == (90.0, 92.0) and row.refused == 4
    (row,) = rows({one: found(90.0, {"0": 1})})
    assert row.refused is None
    assert json.loads(one.key)["idea"] == ALONE and IN_FORGETTING
