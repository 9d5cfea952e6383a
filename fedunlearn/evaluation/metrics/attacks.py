"""Membership attacks: do the forgotten data still look like training data? See ``membership``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedunlearn.evaluation import membership, roc
from fedunlearn.evaluation.metric import metric
from fedunlearn.evaluation.metrics.quality import same_sites
from fedunlearn.evaluation.scored import Floats

if TYPE_CHECKING:
    from fedunlearn.evaluation.evidence import Evidence


@metric(
    "mia_svc",
    title="MIA-SVC",
    unit="%",
    better="retrain",
    heading="MIA",
    show=("terminal", "markdown", "page", "plot"),
)
def mia_svc(evidence: Evidence) -> float:
    """Forgotten data an SVC on true-class probability calls members."""
    return membership.mia_svc(
        evidence.forgotten, evidence.retained, evidence.test, seed=evidence.seed, samples=evidence.mia_samples
    )


@metric("mia_svc_matched", title="MIA-SVC, label-matched", unit="%", better="retrain", show=())
def mia_svc_matched(evidence: Evidence) -> float:
    """mia_svc, trained on data with the forgotten data's label mix."""
    return membership.mia_svc_matched(
        evidence.forgotten, evidence.retained, evidence.test, seed=evidence.seed, samples=evidence.mia_samples
    )


@metric("mia_yeom", title="MIA-Yeom", unit="%", better="retrain", show=())
def mia_yeom(evidence: Evidence) -> float:
    """Forgotten data with a loss of at most the retained data's mean."""
    return membership.mia_yeom(evidence.forgotten, evidence.retained)


@metric("mia_yeom_matched", title="MIA-Yeom, label-matched", unit="%", better="retrain", show=("page",))
def mia_yeom_matched(evidence: Evidence) -> float:
    """mia_yeom, the mean taken over the forgotten data's label mix."""
    return membership.mia_yeom_matched(evidence.forgotten, evidence.retained)


@metric("mia_auc", title="MIA AUC", unit="%", better="retrain", show=("page",))
def mia_auc(evidence: Evidence) -> float:
    """AUC x 100, forgotten against unseen data of the same labels or sites."""
    return 100 * roc.auc(*_scores(evidence))


@metric("mia_tpr_at_1_fpr", title="MIA TPR at 1 % FPR", unit="%", better="retrain", show=())
def mia_tpr_at_1_fpr(evidence: Evidence) -> float:
    """Forgotten data called members at 1 % false alarms."""
    return roc.tpr_at_fpr(*_scores(evidence), percent=1)


def _scores(evidence: Evidence) -> tuple[Floats, Floats]:
    """Return the scores of forgotten and of comparable unseen data, which two metrics read."""

    def found() -> tuple[Floats, Floats]:
        if evidence.task == "segmentation":
            return membership.site_scores(evidence.forgotten, evidence.test, same_sites(evidence))
        return membership.matched_scores(evidence.forgotten, evidence.test, seed=evidence.seed)

    return evidence.once("scores of forgotten and unseen data", found)
