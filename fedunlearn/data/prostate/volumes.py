"""One case's scan and mask as arrays in one orientation, or what is wrong with them.

Whatever order and direction the axes are stored in, a volume comes out as slices from the feet to the head, each as
a radiologist looks at it: rows from front to back, columns from the patient's right to the left.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedunlearn.data.prostate.bad_case import BadCaseError
from fedunlearn.data.prostate.labels import NoLabelsError, prostate_in
from fedunlearn.data.prostate.nifti import read_grid

FAR = 16
"""Values that lie so many times their own range from 0 are moved to it: float32 would round them to few levels."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan and its mask, voxel for voxel.

    Attributes
    ----------
    intensities : ndarray
        float32, (slices, rows, columns), all finite.
    mask : ndarray
        bool, the same shape: prostate.
    spacing : tuple of float
        Millimetres from row to row and from column to column.
    """

    intensities: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    spacing: tuple[float, float]


def read_volume(scan: bytes, mask: bytes, scan_path: Path, mask_path: Path) -> Volume:
    """Return a case from the bytes of its two files; a mask is where the labels are above 0.

    A mask whose header does not say where it lies (no affine, or the identity) lies on its scan voxel by voxel.

    Raises
    ------
    BadCaseError
        A file that :func:`~fedunlearn.data.prostate.nifti.read_grid` refuses; a mask that does not lie on its scan,
        or that :func:`~fedunlearn.data.prostate.labels.prostate_in` refuses.
    """
    image = read_grid(scan, scan_path)
    labels = read_grid(mask, mask_path, on=image)
    shapes = [" × ".join(map(str, grid.values.shape)) for grid in (image, labels)]
    if shapes[0] != shapes[1]:
        what = f"has {shapes[1]} voxels, its scan {shapes[0]}"
        raise BadCaseError(mask_path, what, f"resample it onto {scan_path.name}")
    apart = image.furthest(labels)
    if apart > image.sides.min() / 2:
        what = f"is up to {apart:.1f} mm away from its scan: the affines of the two files differ"
        raise BadCaseError(mask_path, what, f"resample it onto {scan_path.name}")
    try:
        prostate = prostate_in(labels.values)
    except NoLabelsError as error:
        raise BadCaseError(mask_path, error.what, error.remedy) from error
    _, front, _ = image.sides
    return Volume(
        intensities=np.ascontiguousarray(_as_seen(_single(image.values))),
        mask=np.ascontiguousarray(_as_seen(prostate)),
        spacing=(float(front), float(image.sides[0])),
    )


def _single(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return intensities in float32, less the least of them where they lie far from 0; only their scale counts."""
    low, high = float(values.min()), float(values.max())
    if abs(low) > FAR * (high - low):
        values = values.astype(np.float64) - low
    return values.astype(np.float32, copy=False)


def _as_seen(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (right, front, head) axes as (head, back, left)."""
    return np.flip(values, axis=(0, 1)).transpose(2, 1, 0)
