"""Membership inference: how much do the forgotten data still look like training data?

Four attacks and two readings of a ranking. F is the forgotten data, R the retained training data, T the test
data; for a model that has truly forgotten F each number is the one a retrained model gives, not 0, 50 or 100.

Papers: Yeom et al., "Privacy Risk in Machine Learning", 2018 (the loss threshold). The SVC attack and
Yeom's threshold are those of PUF's public code (Mora et al., arXiv 2504.05822).
The label-matched versions are a reconstruction: see ``matching``.

An example's confidence is the softmax probability of its true class; a slice's, the mean over its pixels.
Masks have no label mix, so that the label-matched versions cannot be had of them.

Every draw comes from the generator at (seed, "membership"), afresh in each function: which examples are
drawn depends on the labels and the seed, never on the model, so that two models of one seed are compared
on the same examples.
"""

from __future__ import annotations

import numpy as np

from fedunlearn.evaluation.matching import draw, draw_by_label, label_quotas, require_labels
from fedunlearn.evaluation.scored import Floats, Integers, Scored, Unmeasurable
from fedunlearn.randomness import numpy_generator


def mia_svc(forget: Scored, retain: Scored, test: Scored, *, seed: int, samples: int = 10_000) -> float:
    """Percent of F that a support vector machine, told R from T, calls a member.

    The feature is the confidence. m examples of R are the members, m of T the non-members,
    m = min(samples, |R|, |T|), drawn without replacement.
    """
    size = min(samples, len(retain), len(test))
    generator = numpy_generator(seed, "membership")
    members = draw(len(retain), size, generator)
    non_members = draw(len(test), size, generator)
    return _svc(forget, retain.confidences[members], test.confidences[non_members])


def mia_svc_matched(
    forget: Scored, retain: Scored, test: Scored, *, seed: int, samples: int = 10_000
) -> float:
    """``mia_svc`` with as many members as non-members of every label, mixed as in F.

    Of each label, R and T give the same number of examples: as many as both have at F's proportions, at
    most ``samples`` in all.
    """
    quotas = label_quotas(
        _label_counts(forget),
        np.minimum(_label_counts(retain), _label_counts(test)),
        most=samples,
    )
    generator = numpy_generator(seed, "membership")
    members = draw_by_label(retain.label_array, quotas, generator)
    non_members = draw_by_label(test.label_array, quotas, generator)
    return _svc(forget, retain.confidences[members], test.confidences[non_members])


def mia_yeom(forget: Scored, retain: Scored) -> float:
    """Percent of F with a loss of at most the mean loss over all of R."""
    if not len(retain):
        raise Unmeasurable("there are no retained examples")
    return _share_at_most(forget, float(retain.losses.mean()))


def mia_yeom_matched(forget: Scored, retain: Scored) -> float:
    """Percent of F with a loss of at most the mean loss of R re-weighted to F's label mix.

    The threshold is Σ_c (f_c / |F|) · mean loss of R's label c. That is the mean loss a draw from R in F's
    proportions has on average, so nothing need be drawn.
    """
    counts = _label_counts(forget)
    require_labels(counts, _label_counts(retain))
    means = [retain.losses[retain.label_array == label].mean() for label in np.flatnonzero(counts)]
    return _share_at_most(forget, float(np.average(means, weights=counts[counts > 0])))


def matched_scores(forget: Scored, test: Scored, *, seed: int) -> tuple[Floats, Floats]:
    """Scores of F and of T thinned to F's label mix, for ``roc.auc`` and ``roc.tpr_at_fpr``.

    The score is the margin log(p / (1 − p)) of the true class's probability p, which ranks as p does.
    """
    quotas = label_quotas(_label_counts(forget), _label_counts(test))
    chosen = draw_by_label(test.label_array, quotas, numpy_generator(seed, "membership"))
    return forget.margins, test.margins[chosen]


def site_scores(forget: Scored, test: Scored, same_sites: Integers) -> tuple[Floats, Floats]:
    """Scores of F and of the part of T that is from the same sites, for ``roc.auc`` and ``roc.tpr_at_fpr``.

    The counterpart of ``matched_scores`` for slices, which have no labels to match: two sites' scans differ
    as two labels' images do, and an attack that compares them measures that as well. A correction of ours,
    no paper's.

    Parameters
    ----------
    same_sites : int array
        Rows of T that are from the sites that F is from.
    """
    if not len(same_sites):
        raise Unmeasurable("the test split has no data from the forgotten sites")
    return forget.margins, test.margins[same_sites]


def _svc(forget: Scored, members: Floats, non_members: Floats) -> float:
    if not len(forget):
        raise Unmeasurable("there are no forgotten examples")
    if not len(members) or not len(non_members):
        raise Unmeasurable("there are no members or no non-members to learn from")
    # Imported here: it takes a second, and `fedunlearn list metrics` need not wait for it.
    from sklearn.svm import SVC

    features = np.concatenate([members, non_members])[:, None]
    is_member = np.repeat([1, 0], [len(members), len(non_members)])
    attack = SVC(C=3, kernel="rbf", gamma="auto").fit(features, is_member)
    called = attack.predict(forget.confidences[:, None])
    return 100 * int(called.sum()) / len(forget)


def _share_at_most(forget: Scored, threshold: float) -> float:
    if not len(forget):
        raise Unmeasurable("there are no forgotten examples")
    return 100 * int((forget.losses <= threshold).sum()) / len(forget)


def _label_counts(split: Scored) -> Integers:
    return np.bincount(split.label_array, minlength=split.num_classes).astype(np.int64)
