"""Where each slice of a segmentation task is from, and how large its pixels are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedunlearn.data.source import Indices


@dataclass(frozen=True, eq=False)
class SliceIndex:
    """Origin and pixel size of slices, row by row beside their images.

    Attributes
    ----------
    site : ndarray
        int64, (n,): the client that the slice is from, also of validation and test slices.
    case : ndarray
        int64, (n,): the patient, counted within the site in the order of names. Site and case together name one.
    slice : ndarray
        int64, (n,): height in the volume, counted from the feet.
    spacing : ndarray
        float32, (n, 2): millimetres per pixel, down a column and along a row of the image as the model sees it.
    """

    site: Indices
    case: Indices
    slice: Indices
    spacing: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.site)

    def take(self, rows: Indices) -> SliceIndex:
        """Return the index of these rows alone, in this order."""
        return SliceIndex(self.site[rows], self.case[rows], self.slice[rows], self.spacing[rows])
