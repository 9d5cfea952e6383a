"""A six-site set of phantoms on disk, in the layout of the public prostate MRI data.

``DIR/<site>/Case00.nii.gz`` and ``DIR/<site>/Case00_segmentation.nii.gz`` (``_Segmentation`` at ISBI and
ISBI_1.5), two zones in the masks of ISBI and ISBI_1.5 and one label elsewhere. ``DIR/PHANTOM.json`` says that
nothing here is of a patient.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from fedunlearn.data.phantom.scan import scan
from fedunlearn.data.phantom.sites import SITES, SiteProtocol
from fedunlearn.errors import UserError
from fedunlearn.randomness import numpy_generator

VERSION = 1
"""Counts up when the same seed would give other phantoms."""
SENTENCE = "Synthetic phantoms drawn at random by fedunlearn: no image here is of a patient."
SMALLEST, LARGEST = 32, 1024
FASTEST_GZIP = 1  # noise hardly compresses: a higher level takes three times as long for a few percent


def write_phantoms(
    folder: Path,
    *,
    cases: int,
    seed: int = 0,
    size: int = 320,
    done: Callable[[str, int], None] = lambda site, case: None,
) -> None:
    """Write `cases` phantoms for each of the six sites.

    The same arguments give the same bytes, and more cases leave the first ones as they are.

    Parameters
    ----------
    folder : Path
        Made if it does not exist; must be empty.
    cases : int
        Per site.
    seed : int
        Draws patients and noise (purpose ``phantom``, with the site's number and the case's).
    size : int
        Pixels along the in-plane matrix of the largest site; the fields of view stay.
    done : callable
        Called with the site's name and the case's number when a case is written.

    Raises
    ------
    UserError
        `folder` is a file or not empty, or a number is out of range.
    """
    if cases < 1:
        raise UserError(f"--cases {cases}: must be at least 1")
    if not SMALLEST <= size <= LARGEST:
        raise UserError(f"--size {size}: must be from {SMALLEST} to {LARGEST} pixels")
    _take(folder)
    # First of all: whatever becomes of the rest, what lies here is never taken for real data.
    about = {"version": VERSION, "seed": seed, "cases": cases, "size": size, "note": SENTENCE}
    (folder / "PHANTOM.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    for site_number, site in enumerate(SITES):
        (folder / site.name).mkdir()
        for case in range(cases):
            rng = numpy_generator(seed, "phantom", site_number, case)
            name = f"Case{case:02d}"
            for path, content in _files(site, name, size, rng):
                (folder / path).write_bytes(content)
            done(site.name, case)


def _take(folder: Path) -> None:
    """Make `folder`, or make sure that it is empty."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        empty = not any(folder.iterdir())
    except OSError as error:
        raise UserError(
            f"{folder}: cannot hold phantoms ({error.strerror}); choose another folder with --out"
        ) from None
    if not empty:
        raise UserError(f"{folder}: is not empty; name a new or empty folder with --out")


def _files(site: SiteProtocol, name: str, size: int, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Yield the path below the set's folder and the content of a case's image and mask."""
    scanned = scan(site, size, rng)
    for ending, volume in (("", scanned.image), (site.mask, scanned.mask(zones=site.zones))):
        content = nifti(volume, scanned.spacing, axes=site.axes, oblique=site.oblique)
        yield f"{site.name}/{name}{ending}.nii.gz", content


def nifti(
    volume: npt.NDArray[Any], spacing: tuple[float, float, float], *, axes: str, oblique: float
) -> bytes:
    """Return a compressed NIfTI file, the same for the same input whenever it is made.

    Parameters
    ----------
    volume : ndarray
        (x, y, z): to the right, to the front, to the head; its centre is the scanner's.
    spacing : tuple of float
        mm along the three.
    axes : str
        Where the axes of the stored array shall point, such as "LPS".
    oblique : float
        Degrees about x by which the volume is turned in the scanner.
    """
    cosine, sine = np.cos(np.deg2rad(oblique)), np.sin(np.deg2rad(oblique))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]) * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(volume.shape) - 1) / 2)
    image = nib.Nifti1Image(volume, affine)
    image = image.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(axes)))
    image.set_qform(image.affine, code="scanner")
    image.set_sform(image.affine, code="scanner")
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = "synthetic phantom"
    return gzip.compress(image.to_bytes(), compresslevel=FASTEST_GZIP, mtime=0)
