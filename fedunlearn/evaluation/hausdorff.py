"""How far the outline of a predicted mask is from the true one, in mm."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

PERCENTILE = 95.0


def distances(predicted: Tensor, truth: Tensor, spacing: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the 95 % Hausdorff distance of each slice in mm, by MONAI; NaN where one of its masks is empty.

    The outline of a mask are its pixels with one of the four neighbours outside it; beyond the image all is
    outside. Of each outline the 95th percentile (interpolated linearly) of the distances to the nearest point
    of the other is taken, and the larger of the two is the slice's distance.

    Parameters
    ----------
    predicted, truth : Tensor of bool, shape (n, height, width)
    spacing : array, shape (n, 2)
        Millimetres from pixel to pixel down a column and along a row.
    """
    # Imported here: it takes seconds, and most rounds need none of it.
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    predicted, truth = predicted.cpu(), truth.cpu()
    found = np.full(len(truth), np.nan)
    both = np.flatnonzero((predicted.flatten(1).any(dim=1) & truth.flatten(1).any(dim=1)).numpy())
    if len(both):
        with warnings.catch_warnings():
            # MONAI's own call of itself, which its next release will have put right.
            warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
            found[both] = compute_hausdorff_distance(
                predicted[both, None],
                truth[both, None],
                include_background=True,  # the one channel given is the mask itself
                percentile=PERCENTILE,
                spacing=spacing[both].tolist(),
            )[:, 0].numpy()
    return found
