"""One case's scan and mask as arrays in one orientation, or what is wrong with them.

Whatever order and direction the axes are stored in, a volume comes out as slices from the feet to the head, each as
a radiologist looks at it: rows from front to back, columns from the patient's right to the left.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedunlearn.data.prostate.bad_case import BadCaseError

GZIP = b"\x1f\x8b"
NIFTI_2 = 540
"""Bytes of the second version's header, which begins with that number."""


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


@dataclass(frozen=True, eq=False)
class _Grid:
    """Voxels with axes towards right, front and head (RAS), and where they lie."""

    values: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]
    stored: npt.NDArray[np.float64]  # the affine of the axes as they are in the file

    @property
    def sides(self) -> npt.NDArray[np.float64]:
        """Millimetres per voxel along each axis."""
        lengths: npt.NDArray[np.float64] = np.sqrt(np.square(self.affine[:3, :3]).sum(axis=0))
        return lengths


def read_volume(scan: bytes, mask: bytes, scan_path: Path, mask_path: Path) -> Volume:
    """Return a case from the bytes of its two files; a mask is where the labels are above 0.

    A mask whose header does not say where it lies (no affine, or the identity) lies on its scan voxel by voxel.

    Raises
    ------
    BadCaseError
        A file that is no whole NIfTI volume, has other than three axes or numbers that are not finite; a mask that
        does not lie on its scan or is empty.
    """
    image = _read(scan, scan_path)
    labels = _read(mask, mask_path, on=image)
    shapes = [" × ".join(map(str, grid.values.shape)) for grid in (image, labels)]
    if shapes[0] != shapes[1]:
        what = f"has {shapes[1]} voxels, its scan {shapes[0]}"
        raise BadCaseError(mask_path, what, f"resample it onto {scan_path.name}")
    apart = _furthest(image, labels)
    if apart > image.sides.min() / 2:
        what = f"lies up to {apart:.1f} mm beside its scan: the affines of the two files differ"
        raise BadCaseError(mask_path, what, f"resample it onto {scan_path.name}")
    if not (labels.values > 0).any():
        raise BadCaseError(
            mask_path, "is empty: no voxel is labelled", "segment the prostate, or remove the case"
        )
    _, front, _ = image.sides
    return Volume(
        intensities=np.ascontiguousarray(_as_seen(image.values), dtype=np.float32),
        mask=np.ascontiguousarray(_as_seen(labels.values) > 0),
        spacing=(float(front), float(image.sides[0])),
    )


def _read(content: bytes, path: Path, on: _Grid | None = None) -> _Grid:
    import nibabel  # lazily: slow to import, and only needed for a case that is not in the cache

    # The format, not the name, says whether a file is compressed; unpacking it as a whole checks its checksum.
    try:
        plain = gzip.decompress(content) if content.startswith(GZIP) else content
        version_2 = NIFTI_2 in (int.from_bytes(plain[:4], order) for order in ("little", "big"))
        image = (nibabel.Nifti2Image if version_2 else nibabel.Nifti1Image).from_bytes(plain)
        shape, affine = image.shape, image.affine
        unplaced = not (image.header["sform_code"] or image.header["qform_code"])
        values = np.asarray(image.dataobj) if len(shape) == 3 else None
    except Exception as error:  # of many types: whatever the damage has hit
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise BadCaseError(path, f"is no whole NIfTI volume ({reason})", "fetch it again") from error
    if values is None:
        what = f"has {len(shape)} axes ({' × '.join(map(str, shape))} voxels), a volume has 3"
        raise BadCaseError(path, what, "keep one volume of it")
    if values.dtype.kind not in "biuf" or values.size == 0:
        what = f"holds {values.size and values.dtype} voxels, not one real number each"
        raise BadCaseError(path, what, "convert it to grey levels")
    with np.errstate(over="ignore"):  # what overflows is infinite, and reported
        values = values.astype(np.float32, copy=False)
    if broken := int(np.count_nonzero(~np.isfinite(values))):
        raise BadCaseError(
            path, f"holds {broken} voxels that are not finite numbers", "repair or fetch it again"
        )
    if not (np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 0):
        raise BadCaseError(
            path, "does not say how large its voxels are (a broken affine)", "repair its header"
        )
    if on is not None and (unplaced or np.array_equal(affine, np.eye(4))):
        affine = on.stored
    turned = nibabel.io_orientation(affine)
    moved = affine @ nibabel.orientations.inv_ornt_aff(turned, shape)
    return _Grid(nibabel.apply_orientation(values, turned), moved, affine)


def _furthest(one: _Grid, other: _Grid) -> float:
    """Return the largest distance, in millimetres, between the same corner of two grids of one shape."""
    last = np.array(one.values.shape) - 1
    corners = np.array([[*(last * at), 1] for at in product((0, 1), repeat=3)]).T
    return float(np.linalg.norm(((one.affine - other.affine) @ corners)[:3], axis=0).max())


def _as_seen(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (right, front, head) axes as (head, back, left)."""
    return np.flip(values, axis=(0, 1)).transpose(2, 1, 0)
