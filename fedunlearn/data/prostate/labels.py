"""Which voxels of a mask are prostate: of labels, and of nothing that only looks like them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

WHOLE = 1e-3
"""So near must a label be to a whole number: scale factors of a header round."""
MOST_LABELS = 8
"""Different labels above 0 that a mask has at most: zones of the prostate are two to five."""
MOST_SHARE = 0.5
"""Of a volume that can be prostate: in the public data it is a fiftieth, of the smallest field of view a tenth."""

ONLY_LABELS = "save the segmentation as whole numbers with background 0"


class NoLabelsError(ValueError):
    """An array that is no segmentation.

    Attributes
    ----------
    what, remedy : str
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}; {remedy}")
        self.what = what
        self.remedy = remedy


def prostate_in(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return where the labels are above 0.

    Parameters
    ----------
    values : ndarray
        Finite real numbers of any type and shape: whole, 0 and below for the background.

    Raises
    ------
    NoLabelsError
        Numbers that are not whole, more than a few different labels, none, or a label for most of the volume: an
        interpolated mask, a scan, a mask without background or with the two exchanged.
    """
    spread = f"values {values.min() + 0.0:g} to {values.max() + 0.0:g}"
    labels = values
    if values.dtype.kind == "f":
        labels = np.rint(values)
        between = int(np.count_nonzero(np.abs(values - labels) > WHOLE))
        if between:
            raise NoLabelsError(
                f"is not a label mask: {_share(between, values.size)} of its voxels lie between whole numbers "
                f"({spread})",
                "resample it with nearest neighbours, or set values above ½ to 1 and all others to 0",
            )
    labelled = labels > 0
    count = int(np.count_nonzero(labelled))
    if not count:
        seen = "" if not values.any() else f" ({spread})"
        raise NoLabelsError(
            f"is empty: no voxel is labelled{seen}", "segment the prostate, or remove the case"
        )
    found = np.unique(labels[labelled])
    if len(found) > MOST_LABELS:
        raise NoLabelsError(f"is not a label mask: it has {len(found)} of them ({spread})", ONLY_LABELS)
    if count > MOST_SHARE * values.size:
        named = ", ".join(f"{label:g}" for label in found.tolist())
        raise NoLabelsError(
            f"labels {_share(count, values.size)} of the volume as prostate (label {named}; {spread})",
            ONLY_LABELS,
        )
    return labelled


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3g} %"
