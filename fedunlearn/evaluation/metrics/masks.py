"""Distances of outlines, and the slices that they cannot see."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from fedunlearn.evaluation import mask_measures
from fedunlearn.evaluation.metric import metric
from fedunlearn.evaluation.scored import Scored

if TYPE_CHECKING:
    from fedunlearn.evaluation.evidence import Evidence
    from fedunlearn.evaluation.segmentation import SegmentationOutputs


@metric(
    "forget_hausdorff",
    title="forget Hausdorff, mm",
    unit="mm",
    better="retrain",
    tasks=("segmentation",),
    heading="HD95",
    show=("terminal", "markdown", "page", "plot"),
)
def forget_hausdorff(evidence: Evidence) -> float:
    """95 % Hausdorff distance of masks, on slices to forget."""
    return mask_measures.mean_distance(_masks(evidence.forgotten))


@metric("test_hausdorff", title="test Hausdorff, mm", unit="mm", better="lower", tasks=("segmentation",))
def test_hausdorff(evidence: Evidence) -> float:
    """95 % Hausdorff distance of masks, on the test split."""
    return mask_measures.mean_distance(_masks(evidence.test))


@metric("test_missed", title="missed test slices, %", unit="%", better="lower", tasks=("segmentation",))
def test_missed(evidence: Evidence) -> float:
    """Test slices without any predicted mask; no distance sees them."""
    return mask_measures.missed(_masks(evidence.test))


def _masks(split: Scored) -> SegmentationOutputs:
    return cast("SegmentationOutputs", split)  # the task says so
