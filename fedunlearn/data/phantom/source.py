"""Phantoms as a source of their own: drawn when they are first asked for, and read like real files."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from fedunlearn.config.conditions import Pixels, at_least, at_most
from fedunlearn.config.settings import SourceSettings
from fedunlearn.data.array_cache import arrays_folder
from fedunlearn.data.prostate import ProstateSettings, prostate_mri
from fedunlearn.data.prostate.layout import SITES, read_layout
from fedunlearn.data.slice_source import SliceSource
from fedunlearn.errors import ConfigError

COARSEST = 64
"""Pixels of the largest site's matrix, however small the slices are that a model sees."""


@dataclass(frozen=True)
class PhantomSettings(SourceSettings):
    """Number and size.

    Attributes
    ----------
    cases : int
        Patients of each site.
    resize : int
        Height and width of a slice in pixels; the matrix of the largest site is as large, or 64.
    """

    task: ClassVar[str] = "segmentation"
    sites: ClassVar[bool] = True
    cases: Annotated[int, at_least(3), at_most(10_000)] = 8
    resize: Annotated[Pixels, at_least(16)] = 384


def prostate_phantom(settings: PhantomSettings) -> SliceSource:
    """Made-up prostate MRI of six sites, data.cases each: phantoms that need no directory.

    They are those of ``fedunlearn data phantom --seed 0``, kept in the folder of cached arrays, and go through
    the reader of ``prostate-mri``.

    Raises
    ------
    ConfigError
        They cannot be kept, or not be used at this size.
    """
    from fedunlearn.data.phantom.writer import VERSION  # lazily: slow to import, and only needed here

    cases, resize = settings.cases, settings.resize
    size = max(COARSEST, resize)
    folder = arrays_folder().parent / "phantoms" / f"v{VERSION}-{cases}-cases-{size}-pixels"
    if (found := _read(folder, cases, resize)) is not None:
        return found
    try:
        if folder.exists():  # not whole, or damaged: it is made again
            folder.rename(Path(tempfile.mkdtemp(dir=folder.parent, prefix=".damaged-")) / folder.name)
        _write(folder, cases, size)
    except OSError as error:
        raise ConfigError(
            f"{folder}: phantoms cannot be kept there ({error.strerror or type(error).__name__}); set "
            "FEDUNLEARN_CACHE to a folder that can be written to"
        ) from error
    finally:
        for damaged in folder.parent.glob(".damaged-*"):
            shutil.rmtree(damaged, ignore_errors=True)
    return prostate_mri(ProstateSettings(str(folder), resize))


def _read(folder: Path, cases: int, resize: int) -> SliceSource | None:
    """Return the set that is kept; None if it is not there, lacks a case or its notice, or cannot be read."""
    try:
        layout = read_layout(str(folder))
        whole = [len(found) for found in layout.cases.values()] == [cases] * len(SITES)
        return (
            prostate_mri(ProstateSettings(str(folder), resize))
            if whole and layout.origin == "phantom"
            else None
        )
    except (ConfigError, OSError):
        return None


def _write(folder: Path, cases: int, size: int) -> None:
    """Write the set beside its place and move it there: others find all of it or nothing."""
    from fedunlearn.data.phantom.writer import write_phantoms

    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".staging-"))
    try:
        write_phantoms(staging, cases=cases, size=size)
        with suppress(OSError):  # another process was first; its files are the same
            staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
