"""Bounds of one client's answer: who is out of them is refused by name, and nobody else."""

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.config import GuardConfig
from fedunlearn.federation.answers import MOST_EXAMPLES, unsound
from fedunlearn.federation.sums import BlockSum, Contribution
from fedunlearn.live.screening import LARGEST_SUM, Known, screened, screened_forgetting
from fedunlearn.models.state import ModelState

GUARD = GuardConfig()
OFF = GuardConfig(enabled=False)
MODEL = ModelState(torch.zeros(4), {"mean": torch.zeros(2), "batches": torch.tensor(100)})


def of(*norms, examples=(), first=0):
    """Return answers of clients whose updates have these norms."""
    counts = [*examples, *[20] * (len(norms) - len(examples))]
    moved = {"mean": torch.ones(2), "batches": torch.tensor(105)}
    return [
        Contribution(first + k, counts[k], torch.tensor([norm, 0.0, 0.0, 0.0]), moved)
        for k, norm in enumerate(norms)
    ]


def refused(answers, known=Known(), guard=GUARD, declared=None, model=MODEL):  # noqa: B008
    return screened(answers, model, known, guard, declared or {})[0]


def learned(answers, known=Known(), guard=GUARD):  # noqa: B008
    return screened(answers, MODEL, known, guard, {})[1]


@pytest.mark.parametrize("evil", [10.1, -50.0, 1e6, 3e38])
def test_an_update_far_longer_than_the_median_is_refused_by_name(evil):
    found = refused(of(1.0, 1.2, evil, 0.8, 1.0))
    assert list(found) == [2]
    assert found[2].startswith("refused: update of norm") and "guard.max-norm = 10" in found[2]
    assert refused(of(1.0, 1.2, 9.9, 0.8, 1.0)) == {}


def test_the_bound_is_on_the_largest_median_so_far():
    """A model that has nearly stopped learning: an honest update of 30 medians is short beside the first rounds'."""
    late = of(0.01, 0.01, 0.3, 0.01)
    assert list(refused(late)) == [2]
    assert refused(late, learned(of(1.0, 1.2, 0.8, 0.9))) == {}
    assert list(refused(of(0.01, 0.01, 11.0, 0.01), learned(of(1.0, 1.2, 0.8, 1.0)))) == [2]


def test_what_is_usual_may_grow_from_round_to_round():
    """After a step that forgot somebody the updates of everybody are long."""
    assert refused(of(30.0, 35.0, 40.0, 25.0), learned(of(1.0, 1.2, 0.8, 0.9))) == {}


def test_tiny_updates_of_a_minority_do_not_lower_the_bound():
    assert refused(of(1.0, 1e-20, 1e-20, 1.1, 0.9)) == {}
    assert refused(of(0.0, 1.0), learned(of(1.0, 1.2, 0.8))) == {}


def test_of_two_clients_one_can_be_refused_once_it_is_known_what_is_usual():
    assert refused(of(1.0, 1e6)) == {}, "which of the two is odd?"
    assert list(refused(of(1.0, 1e6), learned(of(1.0, 1.1, 0.9)))) == [1]


@given(st.lists(st.floats(1e-3, 1e12), min_size=1, max_size=9), st.booleans())
def test_without_the_refused_nobody_else_is(norms, before):
    """A round that is executed again asks the refused no more, and must come to the same."""
    known = learned(of(1.0, 1.2, 0.8)) if before else Known()
    answers = of(*norms)
    found, now = screened(answers, MODEL, known, GUARD, {})
    kept = [c for c in answers if c.client not in found]
    again, then = screened(kept, MODEL, known, GUARD, {})
    assert again == {} and then == (now if kept else known)


@given(st.lists(st.floats(1.0, 9.9), min_size=1, max_size=9), st.randoms())
def test_within_the_bounds_nobody_is_refused_in_whatever_order(norms, random):
    answers = of(*norms)
    random.shuffle(answers)
    assert refused(answers) == {}


def test_buffers_are_bounded_as_weights_are():
    answers = of(1.0, 1.0, 1.0, 1.0, 1.0)
    far = replace(answers[3], buffers={**answers[3].buffers, "mean": torch.full((2,), 1e6)})
    assert "buffer mean" in refused([*answers[:3], far, answers[4]])[3]
    many = replace(answers[1], buffers={**answers[1].buffers, "batches": torch.tensor(2**62)})
    assert "buffer batches" in refused([answers[0], many, *answers[2:]])[1]
    more = replace(answers[1], buffers={**answers[1].buffers, "batches": torch.tensor(100 + 5 * 20)})
    assert refused([answers[0], more, *answers[2:]]) == {}, "as many times as examples may differ"
    still = [replace(c, buffers={**c.buffers, "mean": torch.zeros(2)}) for c in answers]
    assert list(refused([*still[:4], answers[4]])) == [4], "nobody else moves it"


@pytest.mark.parametrize("value", [-1e-3, -1e30])
def test_a_variance_below_zero_is_unsound(value):
    like = ModelState(torch.zeros(2), {"bn.running_var": torch.ones(3)})
    bad = ModelState(torch.zeros(2), {"bn.running_var": torch.tensor([1.0, value, 1.0])})
    assert unsound(bad, 5, like) == "buffer bn.running_var holds a variance below 0"
    assert unsound(like, 5, like) == ""


# -- numbers of examples -----------------------------------------------------------------------------------


@pytest.mark.parametrize("claimed", [2**31, 2**62, 2**63 - 1])
def test_more_examples_than_anybody_has_are_unsound(claimed):
    assert "must be at most" in unsound(MODEL, claimed, MODEL)
    assert unsound(MODEL, MOST_EXAMPLES, MODEL) == ""


def test_a_first_number_of_examples_is_held_against_the_median():
    found = refused(of(1, 1, 1, 1, examples=[20, 30, 10, 401]))
    assert list(found) == [3]
    assert "num-examples = 401" in found[3] and "the median is 20" in found[3] and "roster" in found[3]
    assert refused(of(1, 1, 1, 1, examples=[20, 30, 10, 400])) == {}
    assert refused(of(1, 1, examples=[1, 10**6])) == {}, "of two clients nobody knows which is odd"


def test_later_numbers_are_held_against_the_first():
    known = learned(of(1, 1, 1, 1, examples=[20, 400, 10, 30]))
    assert refused(of(1, 1, 1, 1, examples=[40, 800, 1, 1]), known) == {}, "it may have forgotten a part"
    found = refused(of(1, 1, 1, 1, examples=[41, 801, 10, 30]), known)
    assert list(found) == [0, 1] and "in its first round 20, guard.max-growth = 2" in found[0]
    grown = learned(of(1, 1, 1, 1, examples=[40, 400, 10, 30]), known)
    assert list(refused(of(1, 1, 1, 1, examples=[80, 400, 10, 30]), grown)) == [0], "never by degrees"


def test_a_refused_number_is_not_what_is_known_of_a_client():
    known = learned(of(1, 1, 1, 1, examples=[20, 20, 20, 10**6]))
    assert known.examples == {0: 20, 1: 20, 2: 20}


def test_the_roster_stands_above_what_clients_say():
    known = learned(of(1, 1, 1, 1, examples=[20, 20, 20, 20]))
    answers = of(1, 1, 1, 1, examples=[20, 20, 20, 5000])
    assert refused(answers, known, declared={3: 5000}) == {}
    assert refused(answers, Known(), declared={3: 5000}) == {}
    assert refused(answers, known, declared={3: 4999}) == {
        3: "refused: num-examples = 5000, the roster allows at most 4999"
    }


# -- sums that overflow ------------------------------------------------------------------------------------


@pytest.mark.parametrize("guard", [GUARD, OFF])
def test_no_sum_overflows_whatever_the_guard(guard):
    for norms in ([1.0, 1.0, 1.0, 3e38], [3e38, 2e38, 1e38, 1.0], [1e37, 3e37]):
        answers = of(*norms)
        found = refused(answers, guard=guard)
        total = BlockSum.of([c for c in answers if c.client not in found])
        assert found and (not total or total.is_finite())
    assert refused(of(1.0, 1e6, 1.0), guard=OFF) == {}
    buffers = [replace(of(1.0)[0], buffers={**of(1.0)[0].buffers, "mean": torch.full((2,), 3e38)})]
    assert list(refused(buffers, guard=guard)) == [0]


@given(
    st.lists(st.floats(0, 3e38), min_size=1, max_size=6), st.lists(st.integers(1, MOST_EXAMPLES), min_size=6)
)
def test_what_is_left_can_always_be_added_up(norms, examples):
    answers = of(*norms, examples=examples[: len(norms)])
    found = refused(answers, guard=OFF)
    total = BlockSum.of([c for c in answers if c.client not in found])
    assert not total or (total.is_finite() and torch.isfinite(total.step_from(torch.ones(4))).all())
    assert math.inf > LARGEST_SUM


# -- those who are to be forgotten -------------------------------------------------------------------------


def forgotten(answers, known, *, trained=True, owners=None, guard=GUARD, declared=None, fewer=()):
    return screened_forgetting(
        answers, owners or {}, known, guard, declared or {}, fewer=fewer, trained=trained
    )


def test_an_update_of_nothing_forgets_nothing():
    known = learned(of(1.0, 1.2, 0.8))
    for norm in (0.0, 1e-30, 1e-4):
        assert "guard.min-norm" in forgotten(of(norm), known)[0]
        assert forgotten(of(norm), known, trained=False) == {}, (
            "what a routine makes of the weights may be little"
        )
        assert forgotten(of(norm), Known()) == {}
        assert forgotten(of(norm), known, guard=OFF) == {}
    assert forgotten(of(0.05, 3e38), known) == {}, "too long is shortened"


def test_a_part_counts_as_its_clients_data():
    known = learned(of(1, 1, 1, examples=[20, 20, 20]))
    answer = of(1.0, examples=[41], first=12)
    assert forgotten(answer, known, owners={12: 1})[12].startswith("refused: num-examples = 41")
    assert forgotten(of(1.0, examples=[40], first=12), known, owners={12: 1}) == {}
    assert list(forgotten(answer, known, owners={12: 1}, declared={1: 40})) == [12]


def test_who_is_to_be_forgotten_as_a_whole_has_what_was_learned_from():
    """By one example it would weigh nothing beside those that are forgotten with it."""
    known = learned(of(1, 1, 1, examples=[20, 20, 20]))
    few = of(1.0, examples=[9])
    assert "num-examples = 9 for forgetting, in its first round 20" in forgotten(few, known)[0]
    assert "for forgetting, " in forgotten(few, known, trained=False)[0]
    assert forgotten(of(1.0, examples=[10]), known) == {}
    assert forgotten(few, known, fewer={0}) == {}, "a part of its data is forgotten already"
    assert forgotten(of(1.0, examples=[1], first=12), known, owners={12: 0}) == {}, "a part may be small"
    assert forgotten(few, Known()) == {} and forgotten(few, known, guard=OFF) == {}


def test_a_checkpoint_keeps_what_is_known():
    known = learned(of(1.0, 1.2, 0.8, examples=[5, 6, 7]))
    assert Known.from_dict(json.loads(json.dumps(known.to_dict()))) == known
    assert known.without([1, 99]).examples == {0: 5, 2: 7}
    assert known.usual_norm == pytest.approx(1.0) and known.largest["update"] == pytest.approx(1.0)
