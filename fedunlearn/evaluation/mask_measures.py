"""Measures of predicted masks beside Dice: the distance of outlines, and the slices that this cannot see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedunlearn.evaluation.scored import Unmeasurable

if TYPE_CHECKING:
    from fedunlearn.evaluation.segmentation import SegmentationOutputs


def mean_distance(split: SegmentationOutputs) -> float:
    """Mean 95 % Hausdorff distance in mm over the slices where both masks are there.

    Raises
    ------
    Unmeasurable
        If there is no such slice, or distances were not measured.
    """
    found = split.distances
    found = found[~np.isnan(found)]
    if not len(found):
        raise Unmeasurable("there is no slice with both a true and a predicted mask")
    return float(found.mean())


def missed(split: SegmentationOutputs) -> float:
    """Percent of the slices with a true mask in which nothing at all was predicted.

    Raises
    ------
    Unmeasurable
        If no slice has a true mask.
    """
    there = split.true_foreground > 0
    if not there.any():
        raise Unmeasurable("there is no slice with a mask")
    return 100 * int((split.predicted_foreground[there] == 0).sum()) / int(there.sum())
