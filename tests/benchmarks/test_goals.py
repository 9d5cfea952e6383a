"""Goals are judged on what was measured, and what was not measured is not judged."""

import pytest

from benchmarks.cases import CASES
from benchmarks.goals import GOALS, Goal, verdict
from benchmarks.ratios import Ratio
from benchmarks.results import Result, Results
from benchmarks.rows import KINDS

FASTER = Goal(what="faster", case="c", over=("flower",), under=("local", "batched"), at_least=2)


def results(*records):
    found = Results({})
    found.put(records)
    return found


def test_a_ceiling_may_have_a_ceiling_for_its_interval():
    goal = Goal(what="w", case="c", over=("local",), under=("bare",), at_most=1.03, upper=1.06)
    assert goal.met_by(Ratio(1.03, 1.0, 1.06, 5))
    assert not goal.met_by(Ratio(1.04, 1.0, 1.05, 5))
    assert not goal.met_by(Ratio(1.02, 1.0, 1.07, 5))
    assert goal.goal == "≤ 1.03, interval ≤ 1.06"


def test_flower_is_compared_with_our_best_row_in_blocks():
    found = verdict(
        FASTER,
        results(
            Result("c", "flower", 1, blocks=[[8.0], [8.0]]),
            Result("c", "local", 1, turns=[1.0], blocks=[[4.0], [4.0]]),
            Result("c", "batched", 1, turns=[9.0], blocks=[[2.0], [2.0]]),
        ),
    )
    assert (found.rows, found.ratio.value, found.met) == ("flower / batched", 4.0, True)


def test_rows_that_took_turns_are_compared_pair_by_pair():
    goal = Goal(what="w", case="c", over=("bare",), under=("batched",), at_least=5)
    found = verdict(
        goal,
        results(
            Result("c", "bare", 1, turns=[4.0, 8.0], blocks=[[100.0]]),
            Result("c", "batched", 1, turns=[1.0, 2.0], blocks=[[1.0]]),
        ),
    )
    assert (found.ratio.value, found.met) == (4.0, False)


def test_the_other_number_of_threads_does_not_count():
    found = verdict(
        FASTER, results(Result("c", "flower", 2, blocks=[[8.0]]), Result("c", "local", 2, blocks=[[1.0]]))
    )
    assert found.met is None


@pytest.mark.parametrize(("quantity", "expected"), [("peak_memory", 4.0), ("first_round", 10.0)])
def test_memory_and_start_are_of_whole_commands(quantity, expected):
    goal = Goal(what="w", case="c", over=("flower",), under=("local",), quantity=quantity, at_least=4)
    found = verdict(
        goal,
        results(
            Result("c", "flower", 1, first_round=[20.0, 20.0], peak_memory=[8, 8]),
            Result("c", "local", 1, first_round=[2.0, 2.0], peak_memory=[2, 2]),
        ),
    )
    assert (found.ratio.value, found.met) == (expected, True)


def test_what_was_not_measured_says_why():
    found = verdict(FASTER, results(Result("c", "flower", 1, missing="no Ray\nand more")))
    assert (found.ratio, found.met, found.why) == (None, None, "flower: no Ray")
    assert verdict(FASTER, results()).why == "flower: not measured"


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.what)
def test_every_goal_is_of_a_case_and_rows_that_are_measured(goal):
    case = CASES[goal.case]
    assert (goal.at_most is None) != (goal.at_least is None)
    for rows in (goal.over, goal.under):
        assert any(KINDS[row].fits(case, goal.threads) for row in rows)
