"""The attacks: against the oracles, and against models whose memory is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.evaluation.membership import (
    matched_scores,
    mia_svc,
    mia_svc_matched,
    mia_yeom,
    mia_yeom_matched,
)
from fedunlearn.evaluation.roc import auc
from fedunlearn.evaluation.scored import Unmeasurable
from tests.evaluation.builders import lists, split, splits, two_class
from tests.oracles import membership as oracle
from tests.profiles import few


def near(value, others, margin=1e-9):
    return any(abs(value - other) < margin for other in others)


@given(splits(), splits())
def test_yeom_is_the_loop(forget, retain):
    forget_losses, retain_losses = oracle.losses(*lists(forget)), oracle.losses(*lists(retain))
    threshold = sum(retain_losses) / len(retain_losses)
    if not near(threshold, forget_losses):  # there, the last bit of a sum decides
        assert mia_yeom(forget, retain) == oracle.yeom(forget_losses, retain_losses)


@given(splits(labels=[0, 2]), st.data())
def test_matched_yeom_is_the_loop(forget, data):
    retain = data.draw(splits(least=8, most=20))
    forget_losses, retain_losses = oracle.losses(*lists(forget)), oracle.losses(*lists(retain))
    forget_labels, retain_labels = forget.labels.tolist(), retain.labels.tolist()
    if not set(forget_labels) <= set(retain_labels):
        with pytest.raises(Unmeasurable, match="no example to compare with has label"):
            mia_yeom_matched(forget, retain)
        return
    expected = oracle.yeom_matched(forget_losses, forget_labels, retain_losses, retain_labels)
    means = {
        c: np.mean([v for v, y in zip(retain_losses, retain_labels, strict=True) if y == c])
        for c in {*forget_labels}
    }
    if not near(np.mean([means[c] for c in forget_labels]), forget_losses):
        assert mia_yeom_matched(forget, retain) == expected


def test_yeom_includes_the_threshold_itself():
    retain = split([[0, 0], [0, 0]], [0, 1])
    assert mia_yeom(retain, retain) == 100.0


@few
@given(st.integers(0, 10**6))
def test_the_svc_is_a_support_vector_machine_with_c_3_and_gamma_1(seed):
    generator = np.random.default_rng(seed)
    retain = two_class(generator.normal(2, 2, 14), generator.integers(0, 2, 14))
    test = two_class(generator.normal(0, 2, 14), generator.integers(0, 2, 14))
    forget = two_class(generator.normal(1, 2, 30), generator.integers(0, 2, 30))
    decisions = oracle.svm_decision(
        [*retain.confidences, *test.confidences],
        [1] * 14 + [-1] * 14,
        penalty=3.0,
        gamma=1.0,
        queries=forget.confidences.tolist(),
    )
    called = mia_svc(forget, retain, test, seed=0)
    # libsvm stops at a tolerance of 1e-3, so what lies that close to its boundary may fall either way.
    sure = sum(value > 0.01 for value in decisions)
    unsure = sum(abs(value) <= 0.01 for value in decisions)
    assert 100 * sure / 30 - 1e-9 <= called <= 100 * (sure + unsure) / 30 + 1e-9


def test_the_svc_reads_the_probability_of_the_true_class():
    """Members are sure of their true class, non-members are as sure of the wrong one."""
    labels = [0, 1] * 20
    remembered, unknown = two_class([6.0] * 40, labels), two_class([-6.0] * 40, labels)
    assert mia_svc(remembered, remembered, unknown, seed=1) == 100.0
    assert mia_svc(unknown, remembered, unknown, seed=1) == 0.0


def test_the_svc_trains_on_as_many_members_as_non_members(monkeypatch):
    sizes = []

    class Spy:
        def __init__(self, **_):
            pass

        def fit(self, features, is_member):
            sizes.append((len(features), int(is_member.sum())))
            return self

        def predict(self, features):
            return np.ones(len(features), dtype=int)

    monkeypatch.setattr("sklearn.svm.SVC", Spy)
    retain, test, forget = (two_class([1.0] * n, [0, 1] * (n // 2)) for n in (40, 30, 4))
    mia_svc(forget, retain, test, seed=1)
    mia_svc(forget, retain, test, seed=1, samples=7)
    mia_svc_matched(forget, retain, test, seed=1)
    mia_svc_matched(forget, retain, test, seed=1, samples=8)
    mia_svc(forget, test, retain, seed=1)  # fewer retained examples than test examples
    mia_svc_matched(forget, test, retain, seed=1)
    assert sizes == [(60, 30), (14, 7), (60, 30), (16, 8), (60, 30), (60, 30)]


def skewed(generator, size, share_of_hard, shift=0.0):
    """Outputs whose confidence depends on the label (1 is hard) and, by ``shift``, on membership."""
    labels = (np.arange(size) < share_of_hard * size).astype(int)
    return two_class(generator.normal(np.where(labels == 1, 0.0, 4.0) + shift, 1.0), labels)


def test_matching_takes_label_skew_out_of_the_attacks():
    """Nothing here was trained on, yet F has mostly the hard label: unmatched attacks see a difference."""
    generator = np.random.default_rng(5)
    forget = skewed(generator, 600, 0.9)
    retain, test = skewed(generator, 3000, 0.5), skewed(generator, 3000, 0.5)
    unmatched = auc(-forget.losses, -test.losses)
    members, non_members = matched_scores(forget, test, seed=1)
    assert unmatched < 0.35
    assert abs(auc(members, non_members) - 0.5) < 0.04
    # The reference: a retained set that has F's label mix to begin with.
    same_mix = skewed(generator, 3000, 0.9)
    assert mia_yeom(forget, retain) < mia_yeom(same_mix, same_mix) - 15
    assert abs(mia_yeom_matched(forget, retain) - mia_yeom(same_mix, same_mix)) < 5


def test_matched_attacks_still_see_a_model_that_remembers():
    generator = np.random.default_rng(6)
    forget, retain = skewed(generator, 400, 0.9, shift=3.0), skewed(generator, 2000, 0.5, shift=3.0)
    test = skewed(generator, 2000, 0.5)
    forgotten = skewed(generator, 400, 0.9)
    for seed in (1, 2):
        assert auc(*matched_scores(forget, test, seed=seed)) > 0.9
        remembers = mia_svc_matched(forget, retain, test, seed=seed)
        assert remembers > mia_svc_matched(forgotten, retain, test, seed=seed) + 30


def test_the_score_tells_apart_probabilities_that_round_to_one():
    forget, test = two_class([60.0, 60.0], [0, 0]), two_class([50.0, 50.0], [0, 0])
    assert (forget.confidences == 1).all()
    assert (test.confidences == 1).all()
    assert auc(*matched_scores(forget, test, seed=1)) == 1.0


def test_draws_depend_on_the_seed_and_never_on_the_model():
    generator = np.random.default_rng(7)
    labels = generator.integers(0, 2, 60)
    forget = two_class([0.0] * 10, [0] * 9 + [1])
    first, second = (two_class(np.arange(60.0) * sign, labels) for sign in (0.01, -0.01))

    def drawn(test, seed):
        scores = matched_scores(forget, test, seed=seed)[1]
        return [int(np.flatnonzero(test.margins == value)[0]) for value in scores]

    assert drawn(first, 1) == drawn(second, 1)
    assert drawn(first, 1) == drawn(first, 1)
    assert len({tuple(drawn(first, seed)) for seed in range(8)}) > 1


@pytest.mark.parametrize("attack", [mia_svc, mia_svc_matched])
def test_nothing_to_attack_is_a_reason_not_a_number(attack):
    some, none = two_class([1.0, 2.0], [0, 1]), two_class([], [])
    for sides in [(none, some, some), (some, none, some), (some, some, none)]:
        with pytest.raises(Unmeasurable):
            attack(*sides, seed=1)
    for attack_on_loss in (mia_yeom, mia_yeom_matched):
        for sides in [(none, some), (some, none)]:
            with pytest.raises(Unmeasurable):
                attack_on_loss(*sides)
