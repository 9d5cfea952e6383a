"""Prostate MRI of six sites, from NIfTI files to slices with masks.

``layout`` finds the files, ``nifti`` reads one, ``volumes`` a case of two, ``labels`` says what of it is prostate,
``slices`` cuts it, ``prepared`` keeps what was cut, ``grey_levels`` knows a scan again, and ``case_split`` says which
cases train, validate and test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch

from fedunlearn.config.conditions import PathText, Pixels, at_least
from fedunlearn.config.settings import SourceSettings
from fedunlearn.data.array_cache import why_not_kept
from fedunlearn.data.prostate.bad_case import BadCaseError
from fedunlearn.data.prostate.grey_levels import identity, padding
from fedunlearn.data.prostate.layout import CaseFiles, read_layout
from fedunlearn.data.prostate.prepared import Prepared
from fedunlearn.data.prostate.slices import CaseSlices
from fedunlearn.data.slice_index import SliceIndex
from fedunlearn.data.slice_source import SliceSource
from fedunlearn.data.source import Indices
from fedunlearn.errors import ConfigError
from fedunlearn.plurals import some

CLASSES = ("background", "prostate")
NAMED = 5
"""So many bad cases are named beside the first."""


@dataclass(frozen=True)
class ProstateSettings(SourceSettings):
    """Where the files lie, and what becomes of them.

    Attributes
    ----------
    directory : str
        Holds a folder per site, under either public naming scheme.
    resize : int
        Height and width of a slice in pixels.
    bad_cases : str
        "refuse" or "skip" a case that cannot be used; either way it is named.
    """

    task: ClassVar[str] = "segmentation"
    sites: ClassVar[bool] = True
    directory: PathText
    resize: Annotated[Pixels, at_least(16)] = 384
    bad_cases: Literal["refuse", "skip"] = "refuse"


def prostate_mri(settings: ProstateSettings) -> SliceSource:
    """Prostate MRI of up to six sites from data.directory (NIfTI), slices of data.resize pixels with masks.

    Raises
    ------
    ConfigError
        No site, one twice, or no case that can be used; with "refuse", a case that cannot.
    """
    layout = read_layout(settings.directory)
    prepared = Prepared(settings.resize)
    slices: list[CaseSlices] = []
    owners: list[tuple[int, int]] = []
    bad: list[BadCaseError] = []
    patients: dict[str, CaseFiles] = {}
    told: list[str] = []
    for site, cases in enumerate(layout.cases.values()):
        for number, case in enumerate(cases):
            try:
                if isinstance(case, BadCaseError):
                    raise case
                made = prepared.slices_of(case)
                first = patients.setdefault(identity(made.brightness), case)
                if first is not case:
                    raise _twin(case, first)
                slices.append(made)
                owners.append((site, number))
                if note := padding(made.brightness, *made.ends.tolist()):
                    told.append(f"{case.scan}: {note}")
            except BadCaseError as error:
                bad.append(error)
    if bad and (settings.bad_cases == "refuse" or not slices):
        raise ConfigError(_refusal(bad, may_skip=bool(slices)))
    if not slices:
        raise ConfigError(
            f"data.directory = {settings.directory!r}: no site's folder holds a NIfTI file; unpack them there"
        )
    left_out = [f"left out {case.path}: {case.what}" for case in bad]
    notes = [*layout.notes, *left_out, *told, *prepared.notes, *why_not_kept()]
    return SliceSource(
        planes=torch.from_numpy(np.concatenate([case.planes for case in slices])),
        neighbours=torch.from_numpy(_neighbours(slices)),
        masks=torch.from_numpy(np.concatenate([case.masks for case in slices])),
        index=_index(slices, owners),
        class_names=CLASSES,
        site_names=tuple(layout.cases),
        other_folders=layout.others,
        origin=layout.origin,
        notes=tuple(map(_text, notes)),
    )


def _text(note: str) -> str:
    """Return a note that any file can hold: bytes of a path that are no UTF-8 become the sign for that."""
    return note.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _twin(case: CaseFiles, first: CaseFiles) -> BadCaseError:
    """Say that two cases are one patient: trained on here and tested on there, or forgotten at one site alone."""
    what = f"site {case.site}'s {case.name} repeats site {first.site}'s {first.name}, the same scan as {first.scan}"
    return BadCaseError(case.scan, what, "keep one of the two")


def _refusal(bad: list[BadCaseError], *, may_skip: bool) -> str:
    """Say what is wrong with the first case and name others, in one line."""
    text = str(bad[0])
    if may_skip:
        text += ', or set data.bad-cases = "skip" to leave it out'
    if others := bad[1:]:
        text += f" (also unusable: {some([str(case.path) for case in others], NAMED)})"
    return text


def _neighbours(slices: list[CaseSlices]) -> Indices:
    """Return each slice's planes, counted through all cases: (n, 3)."""
    before = np.cumsum([0, *(len(case.planes) for case in slices[:-1])])
    return np.concatenate([case.neighbours + first for case, first in zip(slices, before, strict=True)])


def _index(slices: list[CaseSlices], owners: list[tuple[int, int]]) -> SliceIndex:
    sizes = [len(case.slices) for case in slices]
    sites, numbers = np.repeat(np.array(owners, dtype=np.int64), sizes, axis=0).T
    return SliceIndex(
        site=np.ascontiguousarray(sites),
        case=np.ascontiguousarray(numbers),
        slice=np.concatenate([case.slices for case in slices]),
        spacing=np.repeat(np.stack([case.spacing for case in slices]), sizes, axis=0),
    )
