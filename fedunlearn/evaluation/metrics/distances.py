"""How far a model is from the retrained one, in weights and in outputs; see ``distance``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from fedunlearn.evaluation import distance
from fedunlearn.evaluation.evidence import present
from fedunlearn.evaluation.metric import metric
from fedunlearn.evaluation.scored import Unmeasurable

if TYPE_CHECKING:
    from torch import Tensor

    from fedunlearn.evaluation.evidence import Evidence, Retrained
    from fedunlearn.evaluation.outputs import SplitOutputs


@metric(
    "l2_to_retrain",
    title="L2 to retrain",
    unit="weights",
    better="lower",
    needs=("weights", "retrained"),
    retrained_value=0.0,
    marked=False,
    show=(),
)
def l2_to_retrain(evidence: Evidence) -> float:
    """Euclidean distance to retrain's weights."""
    return distance.l2(*_weights(evidence))


@metric(
    "cosine_to_retrain",
    title="cosine distance to retrain",
    unit="0 to 2",
    better="lower",
    needs=("weights", "retrained"),
    retrained_value=0.0,
    marked=False,
    show=(),
)
def cosine_to_retrain(evidence: Evidence) -> float:
    """Cosine distance to retrain: 1 - cosine of the two weight vectors."""
    return distance.cosine(*_weights(evidence))


@metric(
    "kl_to_retrain",
    title="KL(retrain ‖ model)",
    unit="nats",
    better="lower",
    needs=("outputs", "retrained"),
    retrained_value=0.0,
    marked=False,
    show=(),
)
def kl_to_retrain(evidence: Evidence) -> float:
    """Mean KL(retrain || model) on the test split, of masks per pixel."""
    mine, theirs = evidence.test, present(_retrained(evidence).outputs.test, "test")
    if evidence.task != "segmentation":
        return distance.mean_kl(cast("SplitOutputs", mine), cast("SplitOutputs", theirs))
    if evidence.pixel_kl is None:
        raise Unmeasurable("it compares the two models' pixels, which are not kept")
    return evidence.pixel_kl()


def _weights(evidence: Evidence) -> tuple[Tensor, Tensor]:
    return cast("Tensor", evidence.weights), _retrained(evidence).weights


def _retrained(evidence: Evidence) -> Retrained:
    return cast("Retrained", evidence.retrained)  # the declared need
