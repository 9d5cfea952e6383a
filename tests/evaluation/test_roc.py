"""AUC and TPR at a false-positive rate, against counting pairs and scanning thresholds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fedunlearn.evaluation.roc import auc, tpr_at_fpr
from fedunlearn.evaluation.scored import Unmeasurable
from tests.oracles import membership as oracle

# A few coarse values, so that ties are common.
scores = st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 3.0]), min_size=1, max_size=25).map(np.array)


@given(scores, scores)
def test_auc_counts_pairs(members, non_members):
    assert auc(members, non_members) == pytest.approx(oracle.auc(members, non_members), abs=1e-15)


@given(scores, scores)
def test_auc_of_the_two_sides_swapped_is_the_rest(members, non_members):
    assert auc(members, non_members) + auc(non_members, members) == pytest.approx(1, abs=1e-15)


@given(scores, scores)
def test_auc_is_scikit_learns(members, non_members):
    truth = [1] * len(members) + [0] * len(non_members)
    library = roc_auc_score(truth, np.concatenate([members, non_members]))
    assert auc(members, non_members) == pytest.approx(library, abs=1e-12)


@given(scores, scores)
def test_only_the_order_of_scores_matters(members, non_members):
    assert auc(np.exp(members), np.exp(non_members)) == auc(members, non_members)
    assert tpr_at_fpr(np.exp(members), np.exp(non_members)) == tpr_at_fpr(members, non_members)


@given(scores, scores, st.sampled_from([0, 1, 4, 5, 10, 20, 50, 57, 99, 100]))
def test_tpr_is_the_best_of_all_thresholds(members, non_members, percent):
    expected = oracle.tpr_at_fpr(members.tolist(), non_members.tolist(), percent)
    assert tpr_at_fpr(members, non_members, percent=percent) == pytest.approx(expected)


def test_one_percent_of_two_hundred_is_two_false_positives():
    non_members = np.arange(200.0)
    assert tpr_at_fpr(np.array([196.5, 197.5, 198.5, 199.5]), non_members) == 75.0


def test_with_fewer_than_a_hundred_none_is_allowed():
    assert tpr_at_fpr(np.array([98.0, 97.5]), np.arange(99.0)) == 0.0
    assert tpr_at_fpr(np.array([98.5, 97.5]), np.arange(99.0)) == 50.0


@pytest.mark.parametrize("measure", [auc, tpr_at_fpr])
@pytest.mark.parametrize("sides", [([], [1.0]), ([1.0], [])])
def test_an_empty_side_cannot_be_ranked(measure, sides):
    with pytest.raises(Unmeasurable, match="no members or no non-members"):
        measure(*(np.array(side) for side in sides))
