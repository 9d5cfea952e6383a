"""One NIfTI file as voxels with axes towards right, front and head, and where they lie in millimetres."""

from __future__ import annotations

import gzip
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedunlearn.data.prostate.bad_case import BadCaseError
from fedunlearn.plurals import counted

GZIP = b"\x1f\x8b"
NIFTI_2 = 540
"""Bytes of the second version's header, which begins with that number."""
MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Of a header's unit of length: unknown (counted as millimetres), metre, millimetre, micrometre."""
LENGTH = 7
"""The bits of ``xyzt_units`` that give the unit of length."""
SMALLEST, LARGEST = 0.05, 20.0
"""Millimetres per voxel that a scan can have."""
AGREE = 0.01
"""So much, as a share, may the two sizes differ that a header can give of its voxels."""
FLATTEST = 0.5
"""A voxel fills at least this share of the box that its three sides would span at right angles."""

FETCH = "fetch it again"


@dataclass(frozen=True, eq=False)
class Grid:
    """Voxels and where they lie.

    Attributes
    ----------
    values : ndarray
        Of the type that they are stored or scaled in, (right, front, head); finite also in float32.
    affine : ndarray
        float64, (4, 4): voxel numbers to millimetres.
    stored : ndarray
        The affine of the axes as they are in the file.
    """

    values: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]
    stored: npt.NDArray[np.float64]

    @property
    def sides(self) -> npt.NDArray[np.float64]:
        """Millimetres per voxel along each axis."""
        return _sides(self.affine)

    def furthest(self, other: Grid) -> float:
        """Return the largest distance, in millimetres, between the same corner of two grids of one shape."""
        last = np.array(self.values.shape) - 1
        corners = np.array([[*(last * at), 1] for at in product((0, 1), repeat=3)]).T
        return float(np.linalg.norm(((self.affine - other.affine) @ corners)[:3], axis=0).max())


def read_grid(content: bytes, path: Path, on: Grid | None = None) -> Grid:
    """Return the voxels of a single-file NIfTI volume, compressed or not.

    Parameters
    ----------
    content : bytes
        Of the file.
    path : Path
        What to call it.
    on : Grid or None
        Where the voxels lie if the header does not say: no affine, or the identity.

    Raises
    ------
    BadCaseError
        No whole NIfTI volume of three axes and real, finite numbers, or one whose header gives no size of its
        voxels, two of them, or one that no scan has.
    """
    import nibabel  # lazily: slow to import, and only needed for a case that is not in the cache

    # The format, not the name, says whether a file is compressed; unpacking it as a whole checks its checksum.
    try:
        with _silent():
            plain = gzip.decompress(content) if content.startswith(GZIP) else content
            version_2 = NIFTI_2 in (int.from_bytes(plain[:4], order) for order in ("little", "big"))
            kind = nibabel.Nifti2Image if version_2 else nibabel.Nifti1Image
            header = kind.header_class.from_fileobj(BytesIO(plain), check=False)
            if header["sizeof_hdr"] != header.sizeof_hdr:
                raise ValueError(f"a header of {header['sizeof_hdr']} bytes")
            image = kind.from_bytes(plain)
            shape = image.shape
            stored: Any = image.dataobj
            begins, ends = stored.offset, stored.offset + math.prod(shape) * stored.dtype.itemsize
            affine, sizes = image.affine, _declared_sizes(image, header)
    except Exception as error:  # of many types: whatever the damage has hit
        raise _no_volume(path, str(error) or type(error).__name__) from error
    if len(shape) != 3:
        what = f"has {len(shape)} axes ({_by(shape)} voxels), but a volume has 3"
        raise BadCaseError(path, what, "keep one volume of it")
    if min(shape) < 1 or begins < header.single_vox_offset or ends != len(plain):
        raise _no_volume(
            path,
            f"by its header {_by(shape)} voxels from byte {begins} to {ends}, but the file has "
            f"{header.single_vox_offset} to {len(plain)}",
        )
    if stored.dtype.kind not in "biuf":
        raise BadCaseError(
            path, f"holds {stored.dtype} voxels, not one real number each", "convert it to grey levels"
        )
    try:
        with _silent(), np.errstate(over="ignore"):
            values = np.asarray(stored)
            finite = np.isfinite(values.astype(np.float32, copy=False))  # what overflows is infinite
    except Exception as error:
        raise _no_volume(path, str(error) or type(error).__name__) from error
    if broken := int(np.count_nonzero(~finite)):
        what = counted(broken, "voxel that is not a finite number", "voxels that are not finite numbers")
        raise BadCaseError(path, f"holds {what}", "repair or fetch it again")
    for code in ("sform_code", "qform_code"):
        # nibabel takes a code that it does not know for none, and the volume would be mirrored.
        if header[code] != image.header[code]:
            what = f"gives its orientation under an unknown code ({code} {header[code]})"
            raise BadCaseError(path, what, "correct its header")
    unplaced = not (header["sform_code"] or header["qform_code"])
    if on is not None and (unplaced or np.array_equal(affine, np.eye(4))):
        affine = on.stored
    elif unplaced and (header["pixdim"][1:4] == 1).all():  # what a header has in which nothing was written
        what = "does not give its voxel size (neither an orientation nor a size other than 1)"
        raise BadCaseError(path, what, "give it the header of the original")
    else:
        affine = _in_millimetres(affine, sizes, int(header["xyzt_units"]) & LENGTH, path)
    turned = nibabel.io_orientation(affine)
    moved = affine @ nibabel.orientations.inv_ornt_aff(turned, shape)
    return Grid(nibabel.apply_orientation(values, turned), moved, affine)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep nibabel from telling, on other lines, what it repairs: what matters of that is refused."""
    import nibabel

    logger = nibabel.imageglobals.logger
    was_disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = was_disabled


def _declared_sizes(image: Any, header: Any) -> npt.NDArray[np.float64] | None:
    """Return the sizes of voxels that the header gives beside the affine's; None where there are no others."""
    if not header["sform_code"]:  # the affine is made of these; nibabel has put 1 for what is not there
        return np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if not header["qform_code"]:
        return None
    return _sides(image.header.get_qform())


def _in_millimetres(
    affine: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64] | None, unit: int, path: Path
) -> npt.NDArray[np.float64]:
    """Return an affine in millimetres, if its header says how large voxels are, once, and that can be so."""
    sides = _sides(affine)
    sound = bool(np.isfinite(affine).all()) and abs(np.linalg.det(affine[:3, :3])) > FLATTEST * sides.prod()
    if not sound or not sides.all() or (sizes is not None and not (np.isfinite(sizes).all() and sizes.all())):
        raise BadCaseError(path, "does not give its voxel size (broken affine)", "repair its header")
    if sizes is not None and not np.allclose(np.abs(sizes), sides, rtol=AGREE, atol=0):
        what = f"gives two voxel sizes, {_by(sides)} (sform) and {_by(np.abs(sizes))} (qform)"
        raise BadCaseError(path, what, "correct its header")
    if unit not in MILLIMETRES:
        raise BadCaseError(path, f"gives its lengths in an unknown unit ({unit})", "correct its header")
    scale = MILLIMETRES[unit]
    if not (scale * sides.min() >= SMALLEST and scale * sides.max() <= LARGEST):
        what = f"gives a voxel size of {_by(scale * sides)} mm; a scan's is {SMALLEST:g} to {LARGEST:g} mm"
        raise BadCaseError(path, what, "correct the spacing or its unit in the header")
    return np.diag([scale, scale, scale, 1.0]) @ affine


def _sides(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    with np.errstate(over="ignore"):
        lengths: npt.NDArray[np.float64] = np.sqrt(np.square(affine[:3, :3]).sum(axis=0))
    return lengths


def _by(numbers: Any) -> str:
    return " × ".join(f"{number:g}" if isinstance(number, float) else str(number) for number in numbers)


def _no_volume(path: Path, reason: str) -> BadCaseError:
    return BadCaseError(path, f"is not a complete NIfTI volume ({' '.join(reason.split())[:160]})", FETCH)
