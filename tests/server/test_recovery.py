"""When a request has recovered: the rule as a pure function."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.errors import RunError
from fedunlearn.server.recovery import RecoveryRule, RequestProgress, RetrainReference

FLAT = dict.fromkeys(range(1, 100), 80.0)
"""A retrained model that stands still."""


def rule(*, references=None, validation=FLAT, test_at_end=None, clients=(2,), **changes):
    if references is None:
        references = {frozenset(clients): RetrainReference(validation, test_at_end)}
    return RecoveryRule(**{"until": "retrain-accuracy", "references": references, "max_rounds": 4, **changes})


def asked(id="r1", clients=(2,), unlearned=11, at=10, **changes):
    return RequestProgress(id, clients, at, unlearned_round=unlearned, **changes)


def follow(rule, requests, accuracies, *, first=11, name="validation-accuracy"):
    """Judge round after round, as the strategy does."""
    requests = tuple(requests)
    for t, accuracy in enumerate(accuracies, first):
        requests = rule.judge(requests, t, {} if accuracy is None else {name: accuracy})
    return requests


# -- within epsilon of retraining ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accuracies", "epsilon", "outcome", "ended"),
    [
        ([80.0], 0.0, "recovered", 11),  # the unlearning round counts
        ([90.0], 0.0, "recovered", 11),
        ([79.9, 79.9, 80.0], 0.0, "recovered", 13),
        ([79.9], 0.0, None, None),
        ([77.9, 78.0], 2.0, "recovered", 12),
        ([79.9, 79.9, 79.9, 80.0], 0.0, "recovered", 14),  # in the last round that counts
        ([79.9] * 4, 0.0, "capped", 14),
        ([79.9] * 3, 0.0, None, None),
    ],
)
def test_recovered_is_the_first_round_within_epsilon_and_the_cap_censors(accuracies, epsilon, outcome, ended):
    (r,) = follow(rule(epsilon=epsilon), [asked()], accuracies)
    assert (r.outcome, r.ended_round) == (outcome, ended)


def test_the_reference_is_the_retrained_model_of_the_same_round():
    rising = {11: 70.0, 12: 75.0, 13: 60.0}
    (r,) = follow(rule(validation=rising), [asked()], [69.0, 70.0, 60.0])
    assert (r.outcome, r.ended_round) == ("recovered", 13)


def test_an_outcome_is_final():
    (r,) = follow(rule(), [asked()], [80.0, 10.0, 10.0, 10.0, 10.0])
    assert (r.outcome, r.ended_round) == ("recovered", 11)
    (r,) = follow(rule(), [asked()], [10.0] * 4 + [99.0])
    assert (r.outcome, r.ended_round) == ("capped", 14)


@pytest.mark.parametrize("accuracy", [None, float("nan"), float("-inf")])
def test_a_model_that_diverged_has_not_recovered(accuracy):
    (r,) = follow(rule(), [asked()], [accuracy])
    assert r.outcome is None
    (r,) = follow(rule(validation=dict.fromkeys(FLAT, 0.0), epsilon=100.0), [asked()], [accuracy] * 4)
    assert (r.outcome, r.ended_round) == ("capped", 14)


@pytest.mark.parametrize("references", [None, {}, {frozenset({2, 3}): RetrainReference(FLAT)}])
def test_without_a_retrained_model_of_the_same_clients_nothing_can_be_said(references):
    lacking = RecoveryRule(until="retrain-accuracy", references=references)
    with pytest.raises(RunError, match=r"round 11: no retrained model .* request r1"):
        lacking.judge([asked()], 11, {"validation-accuracy": 80.0})


def test_nor_without_one_of_the_same_round():
    with pytest.raises(RunError, match=r"round 12: no retrained model .* request r1"):
        follow(rule(validation={11: 80.0}), [asked()], [70.0, 70.0])


def test_before_it_is_unlearned_nothing_is_judged():
    waiting = asked(unlearned=None, attempts=1)
    assert follow(RecoveryRule(until="retrain-accuracy"), [waiting], [99.0, 99.0]) == (waiting,)


def test_what_is_judged_is_the_task_s_own_quality():
    masks = rule(test_at_end=85.0, quality="dice")
    (r,) = masks.judge([asked()], 11, {"validation-accuracy": 99.0, "test-accuracy": 99.0})
    assert (r.outcome, r.recovered_round_authors) == (None, None)
    (r,) = masks.judge([asked()], 11, {"validation-dice": 80.0, "test-dice": 85.0})
    assert (r.outcome, r.recovered_round_authors) == ("recovered", 11)
    (r,) = rule().judge([asked()], 11, {"validation-dice": 99.0, "test-dice": 99.0})
    assert r.outcome is None


# -- to the cap ------------------------------------------------------------------------------------------


def test_until_max_rounds_it_has_recovered_at_the_cap_whatever_the_accuracy():
    for accuracy in (None, 0.0, 100.0):
        (r,) = follow(RecoveryRule(until="max-rounds", max_rounds=3), [asked()], [accuracy] * 2)
        assert r.outcome is None
        (r,) = follow(RecoveryRule(until="max-rounds", max_rounds=3), [asked()], [accuracy] * 3)
        assert (r.outcome, r.ended_round) == ("recovered", 13)


def test_a_cap_of_one_ends_with_the_unlearning_round():
    (r,) = follow(RecoveryRule(until="max-rounds", max_rounds=1), [asked()], [None])
    assert (r.outcome, r.ended_round) == ("recovered", 11)
    (r,) = follow(rule(max_rounds=1), [asked()], [79.0])
    assert (r.outcome, r.ended_round) == ("capped", 11)


# -- several requests ------------------------------------------------------------------------------------

BOTH = {
    frozenset({2}): RetrainReference(FLAT),
    frozenset({2, 3}): RetrainReference(dict.fromkeys(FLAT, 70.0)),
}


def test_a_later_request_takes_over_the_target_of_the_union():
    first, second = asked(), asked("r2", (3,), unlearned=13, at=12)
    (r1, _) = follow(rule(references=BOTH), [first, replace(second, unlearned_round=None)], [75.0, 75.0])
    assert r1.outcome is None, "75 is less than the 80 of the first target"
    r1, r2 = follow(rule(references=BOTH), [r1, second], [75.0], first=13)
    assert (r1.outcome, r1.ended_round) == ("superseded", 13)
    assert (r2.outcome, r2.ended_round) == ("recovered", 13), "75 is more than the union's 70"


def test_what_has_ended_is_not_superseded():
    first = replace(asked(), outcome="recovered", ended_round=12)
    r1, _ = follow(rule(references=BOTH), [first, asked("r2", (3,), unlearned=13)], [0.0], first=13)
    assert r1 == first


def test_a_request_that_waits_does_not_supersede():
    waiting = asked("r2", (3,), unlearned=None, attempts=1)
    r1, r2 = follow(rule(), [asked(), waiting], [80.0])
    assert (r1.outcome, r2) == ("recovered", waiting), "its clients are not part of the target yet either"


def test_a_failed_request_is_not_part_of_the_target():
    failed = asked("r2", (3,), unlearned=None, outcome="failed", ended_round=10)
    r1, r2 = follow(rule(), [asked(), failed], [80.0])
    assert (r1.outcome, r2) == ("recovered", failed)


def test_requests_of_one_round_recover_together_against_their_union():
    pair = [asked(), asked("r2", (3,))]
    r1, r2 = follow(rule(references=BOTH), pair, [69.0, 70.0])
    assert (r1.outcome, r1.ended_round) == (r2.outcome, r2.ended_round) == ("recovered", 12)


@given(st.permutations(range(3)), st.lists(st.sampled_from([60.0, 75.0, 90.0]), min_size=1, max_size=6))
def test_the_order_of_the_requests_does_not_matter(order, accuracies):
    references = {frozenset({2, 3, 4}): RetrainReference(FLAT, 80.0)}
    three = [asked(), asked("r2", (3,), unlearned=11), asked("r3", (4,), unlearned=11, at=9)]
    judged = follow(rule(references=references), three, accuracies)
    shuffled = follow(rule(references=references), [three[i] for i in order], accuracies)
    assert sorted(judged, key=lambda r: r.id) == sorted(shuffled, key=lambda r: r.id)


# -- the authors' rule, beside ours ----------------------------------------------------------------------


def authors(requests, accuracies, *, first=11, **changes):
    given = rule(test_at_end=85.0, **{"max_rounds": 2, **changes})
    return follow(given, requests, accuracies, first=first, name="test-accuracy")


def test_the_authors_rule_is_the_first_round_whose_test_accuracy_reaches_retrain_s_last():
    (r,) = authors([asked()], [84.9, 85.0, 99.0])
    assert r.recovered_round_authors == 12


def test_the_authors_rule_decides_nothing_and_goes_on_after_our_end():
    (r,) = authors([asked()], [0.0, 0.0, 0.0, 90.0])
    assert (r.outcome, r.ended_round, r.recovered_round_authors) == ("capped", 12, 14)
    (r,) = authors([asked()], [90.0])
    assert (r.outcome, r.recovered_round_authors) == (None, 11)


@pytest.mark.parametrize("accuracy", [None, float("nan")])
def test_the_authors_rule_needs_a_test_accuracy(accuracy):
    (r,) = authors([asked()], [accuracy])
    assert r.recovered_round_authors is None


def test_the_authors_rule_needs_a_reference():
    for reference in (RecoveryRule(), rule(test_at_end=None)):
        (r,) = reference.judge([asked()], 11, {"test-accuracy": 99.0, "validation-accuracy": 0.0})
        assert r.recovered_round_authors is None


def test_the_authors_rule_speaks_of_the_newest_request_only():
    references = {k: replace(v, test_at_end=85.0) for k, v in BOTH.items()}
    r1, r2 = authors([asked(), asked("r2", (3,), unlearned=12)], [99.0], first=12, references=references)
    assert (r1.recovered_round_authors, r2.recovered_round_authors) == (None, 12)


# -- what the ledger is told -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "forgets", "excluded"),
    [
        ({"unlearned": None}, None, None),
        ({"unlearned": None, "attempts": 1}, "waiting", "waiting"),
        ({"unlearned": None, "attempts": 3, "outcome": "failed"}, "failed", "failed"),
        ({}, "recovering", "excluded"),
        ({"outcome": "recovered"}, "forgotten", "excluded"),
        ({"outcome": "superseded"}, "superseded", "excluded"),
        ({"outcome": "capped"}, "forgotten-unrecovered", "excluded"),
    ],
)
def test_progress_in_the_ledger_s_words(changes, forgets, excluded):
    progress = asked(**changes)
    assert progress.ledger_state(forgets=True) == forgets
    assert progress.ledger_state(forgets=False) == excluded, "left out is never called forgotten"


def test_recovering_is_between_unlearned_and_ended():
    assert asked().recovering
    assert not asked(unlearned=None).recovering
    assert not asked(outcome="capped").recovering


def test_progress_survives_the_checkpoint():
    progress = asked(clients=(2, 5), attempts=2, unanswered=1, outcome="capped", ended_round=14)
    stored = progress.to_dict()
    assert stored["clients"] == [2, 5]
    assert RequestProgress.from_dict(stored) == progress


# -- a live federation's own reference ---------------------------------------------------------------------


def live(request, *qualities, epsilon=0.0, cap=4):
    """Judge a request, round by round from its unlearning on."""
    rule = RecoveryRule(until="reference-accuracy", epsilon=epsilon, max_rounds=cap)
    for round, quality in enumerate(qualities, start=request.unlearned_round):
        (request,) = rule.judge([request], round, {"validation-accuracy": quality})
    return request.outcome, request.ended_round


def unlearned_at_5(reference):
    return RequestProgress("r", (2,), 4, unlearned_round=5, reference=reference)


@pytest.mark.parametrize(
    ("qualities", "epsilon", "found"),
    [
        ((80.0,), 0.0, ("recovered", 5)),
        ((10.0, 79.9, 80.0), 0.0, ("recovered", 7)),
        ((10.0, 78.0), 2.0, ("recovered", 6)),
        ((10.0, 79.0), 0.0, (None, None)),
        ((10.0, 20.0, 30.0, 79.0), 0.0, ("capped", 8)),
        ((float("nan"), 80.0), 0.0, ("recovered", 6)),
    ],
)
def test_recovered_is_the_quality_from_before_it_was_unlearned_at_5(qualities, epsilon, found):
    assert live(unlearned_at_5(80.0), *qualities, epsilon=epsilon) == found


def test_without_a_reference_it_is_not_called_recovered():
    assert live(unlearned_at_5(None), 99.0, 99.0, cap=2) == ("capped", 6)


def test_the_account_of_a_simulated_request_is_what_it_always_was():
    assert set(unlearned_at_5(None).to_dict()) == {
        "id", "clients", "at_round", "attempts", "unanswered", "unlearned_round", "outcome", "ended_round",
        "recovered_round_authors",
    }  # fmt: skip


def test_a_live_request_survives_the_checkpoint():
    progress = replace(unlearned_at_5(0.0), alone=True, outcome="refused")
    assert RequestProgress.from_dict(progress.to_dict()) == progress
