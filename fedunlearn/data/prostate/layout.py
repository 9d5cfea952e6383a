"""Sites and cases in a folder of the public six-site prostate MRI data, under either of its naming schemes.

A site is a folder, a case two NIfTI files in it: ``Case07.nii.gz`` and ``Case07_segmentation.nii.gz``. The data are
passed on under several names, even mixed in one release: the sites as BIDMC, HK, I2CVB, ISBI, ISBI_1.5, UCL, or
by the hospitals as HCRUDB, RUNMC and BMC; one site's masks as ``_Segmentation``; compressed or not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedunlearn.data.prostate.bad_case import BadCaseError
from fedunlearn.data.prostate.other_formats import notes_on
from fedunlearn.errors import ConfigError
from fedunlearn.home import expanded
from fedunlearn.plurals import counted

SITES = ("BIDMC", "HK", "I2CVB", "ISBI", "ISBI_1.5", "UCL")
"""By the names that clients have, in their order."""

HOSPITALS = {"HCRUDB": "I2CVB", "RUNMC": "ISBI", "BMC": "ISBI_1.5"}
"""The other names of three of them."""

PHANTOM = "PHANTOM.json"
"""Lies beside the sites if their volumes were made by ``fedunlearn data phantom``."""

_VOLUMES = ("volume is", "volumes are")
_NIFTI = re.compile(r"(?P<case>.+?)(?P<mask>[_-]seg(?:mentation)?)?\.nii(?:\.gz)?", re.IGNORECASE)


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case, under the site's own name and the case's, such as "ISBI" and "Case07"."""

    site: str
    name: str
    scan: Path
    mask: Path


@dataclass(frozen=True)
class Layout:
    """What lies in a folder.

    Attributes
    ----------
    cases : mapping
        Per site that has a folder, in the order of ``SITES``, its cases by name; a case whose files are not the
        two they should be is a :class:`BadCaseError`.
    origin : str
        "phantom" for volumes that were made up, "" for others.
    notes : tuple of str
        What is there and is not used.
    others : tuple of str
        Names of folders that are no site's.
    """

    cases: Mapping[str, tuple[CaseFiles | BadCaseError, ...]]
    origin: str
    notes: tuple[str, ...]
    others: tuple[str, ...]


def read_layout(directory: str | None) -> Layout:
    """Find sites and cases under ``data.directory``; no volume is opened.

    Raises
    ------
    ConfigError
        There is no such folder, no site in it, one that cannot be read, or one twice.
    """
    if directory is None:
        raise ConfigError("data.directory is missing: name the folder that holds the sites' folders")
    root = expanded(directory)
    setting = f"data.directory = {directory!r}"
    try:
        entries = _entries(root)
        folders = [entry for entry in entries if entry.is_dir()]
    except OSError as error:
        raise ConfigError(
            f"{setting}: cannot be read ({error.strerror}); name the sites' folder, or write phantoms there with "
            "`fedunlearn data phantom`"
        ) from error
    found: dict[str, Path] = {}
    notes, others = notes_on(entries), []
    if outside := [entry for entry in entries if entry.is_file() and _NIFTI.fullmatch(entry.name)]:
        notes.append(f"{outside[0]}: is not in a site's folder; {counted(len(outside), *_VOLUMES)} not used")
    for folder in folders:
        site = site_of(folder.name)
        if site is None:
            others.append(folder.name)
            if volumes := _volumes(folder, or_none=True):
                notes.append(
                    f"{folder}: is not one of the six sites; its {counted(len(volumes), *_VOLUMES)} not used"
                )
        elif site in found:
            raise ConfigError(
                f"{setting}: {found[site].name} and {folder.name} are both site {site}; keep one of the folders"
            )
        else:
            found[site] = folder
            try:
                notes += _unread(folder)
            except OSError as error:
                raise ConfigError(
                    f"{folder}: cannot be read ({error.strerror}); let this user read it"
                ) from error
    if not found:
        raise ConfigError(f"{setting}: holds no site's folder ({', '.join(SITES)}){_hint(folders)}")
    return Layout(
        cases={site: tuple(_cases(site, found[site])) for site in SITES if site in found},
        origin="phantom" if (root / PHANTOM).is_file() else "",
        notes=tuple(notes),
        others=tuple(others),
    )


def site_of(folder: str) -> str | None:
    """Return the site that a folder's name stands for, whatever its case and punctuation; None: of no site."""
    names = {_plain(name): site for name, site in [*((site, site) for site in SITES), *HOSPITALS.items()]}
    return names.get(_plain(folder))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _entries(folder: Path, *, or_none: bool = False) -> list[Path]:
    """Return what lies in a folder, but for hidden files such as macOS leaves; `or_none`: if it can be read."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        if or_none:
            return []
        raise


def _volumes(folder: Path, *, or_none: bool = False) -> list[tuple[Path, str, bool]]:
    """Return path, case and whether it is a mask of every NIfTI file."""
    found = []
    for path in _entries(folder, or_none=or_none):
        match = _NIFTI.fullmatch(path.name)
        if match is not None:
            found.append((path, match["case"], match["mask"] is not None))
    return found


def _unread(folder: Path) -> list[str]:
    """Return a line for all that looks like volumes in a site's folder and is not read."""
    entries = _entries(folder)
    notes = notes_on(entry for entry in entries if entry.is_file())
    for entry in entries:
        if entry.is_dir() and not _NIFTI.fullmatch(entry.name):
            files = sum(path.is_file() for path in _entries(entry, or_none=True))
            if files:
                unused = (
                    "its file is not used; move it up"
                    if files == 1
                    else f"its {files} files are not used, move them next to it"
                )
                notes.append(f"{entry}: is a folder inside a site's; {unused}")
    return notes


def _cases(site: str, folder: Path) -> list[CaseFiles | BadCaseError]:
    files: dict[str, tuple[list[Path], list[Path]]] = {}
    names: dict[str, str] = {}
    for path, name, is_mask in _volumes(folder):
        files.setdefault(name.lower(), ([], []))[is_mask].append(path)
        names.setdefault(name.lower(), name)
    return [_case(site, names[key], *files[key]) for key in sorted(files)]


def _case(site: str, name: str, scans: list[Path], masks: list[Path]) -> CaseFiles | BadCaseError:
    for paths, what in ((scans, "scan"), (masks, "segmentation")):
        if len(paths) > 1:
            others = " and ".join(path.name for path in paths[1:])
            return BadCaseError(paths[0], f"{others} is also the same case's {what}", "keep one of them")
    if not scans:
        return BadCaseError(masks[0], f"has no scan: there is no {name}.nii.gz or .nii", "put it there")
    if not masks:
        return BadCaseError(
            scans[0], f"has no segmentation: there is no {name}_segmentation.nii.gz or .nii", "put it there"
        )
    return CaseFiles(site, name, scans[0], masks[0])


def _hint(folders: list[Path]) -> str:
    """Point to the folder inside that does hold sites: archives are often unpacked one level deeper."""
    for folder in folders:
        if any(entry.is_dir() and site_of(entry.name) for entry in _entries(folder, or_none=True)):
            return f"; did you mean {str(folder)!r}?"
    return "; name the folder that holds them"
