"""Volumes that lie among the cases in a format that is not read, and how to convert them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fedunlearn.plurals import counted

_SIMPLE_ITK = "SimpleITK.WriteImage(SimpleITK.ReadImage({name!r}), 'CaseNN.nii.gz')"
_NIBABEL = "nibabel.save(nibabel.load({name!r}), 'CaseNN.nii.gz')"
_UNPACK = "unpack {name}"

CONVERSIONS = {
    ".mha": _SIMPLE_ITK,
    ".mhd": _SIMPLE_ITK,
    ".nrrd": _SIMPLE_ITK,
    ".nhdr": _SIMPLE_ITK,
    ".hdr": _NIBABEL,
    ".img": _NIBABEL,
    ".mgz": _NIBABEL,
    ".mgh": _NIBABEL,
    ".mnc": _NIBABEL,
    ".dcm": "dcm2niix -z y FOLDER",
    ".ima": "dcm2niix -z y FOLDER",
    ".npy": "nibabel.save(nibabel.Nifti1Image(numpy.load({name!r}), affine), 'CaseNN.nii.gz') with the scan's affine",
    ".npz": "nibabel.save(nibabel.Nifti1Image(array, affine), 'CaseNN.nii.gz') with the scan's affine",
    ".mat": "nibabel.save(nibabel.Nifti1Image(array, affine), 'CaseNN.nii.gz') with the scan's affine",
    ".zip": _UNPACK,
    ".tar": _UNPACK,
    ".tgz": _UNPACK,
    ".7z": _UNPACK,
    ".rar": _UNPACK,
}
"""How a file of each ending becomes what is read; a ".gz" behind the ending is left aside."""


def notes_on(paths: Iterable[Path]) -> list[str]:
    """Return a line for each ending among a folder's files that is a volume's and no NIfTI."""
    by_ending: dict[str, list[Path]] = {}
    for path in paths:
        ending = _ending(path.name)
        if ending in CONVERSIONS and not path.name.startswith("."):
            by_ending.setdefault(ending, []).append(path)
    notes = []
    for ending, found in sorted(by_ending.items()):
        others = counted(len(found) - 1, f"more {ending} file are", f"more {ending} files are")
        more = f" and {others}" if len(found) > 1 else ": is"
        how = CONVERSIONS[ending].format(name=found[0].name)
        notes.append(f"{found[0]}{more} not NIfTI and not used; to convert: {how}")
    return notes


def _ending(name: str) -> str:
    return Path(name.lower().removesuffix(".gz")).suffix
