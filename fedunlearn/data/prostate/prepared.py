"""Cases cut into slices once, and kept on disk by what their files contain."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from fedunlearn.data.array_cache import ArrayCache, arrays_folder
from fedunlearn.data.prostate.bad_case import BadCaseError
from fedunlearn.data.prostate.grey_levels import FEWEST
from fedunlearn.data.prostate.layout import CaseFiles
from fedunlearn.data.prostate.slices import FORMAT, CaseSlices, FeaturelessError, cut
from fedunlearn.data.prostate.volumes import read_volume


class Prepared:
    """Slices of cases, `size` pixels wide and high.

    The first time a case is unpacked, checked and cut. Afterwards its files are only read, for the SHA-256 of their
    bytes: names and times of files say nothing, a changed file is noticed. A bad case is never kept.

    Attributes
    ----------
    notes : list of str
        Why nothing can be kept, once.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.cache = ArrayCache(arrays_folder())
        self.notes: list[str] = []

    def slices_of(self, case: CaseFiles) -> CaseSlices:
        """Return a case's slices.

        Raises
        ------
        BadCaseError
            The case cannot be used.
        """
        scan, mask = _bytes(case.scan), _bytes(case.mask)
        key = self._key(scan, mask)
        arrays = self.cache.load(key)  # of a case that passed all that follows
        if arrays is not None:
            return CaseSlices(**arrays)
        try:
            made = cut(read_volume(scan, mask, case.scan, case.mask), self.size)
        except FeaturelessError as error:
            raise BadCaseError(
                case.scan, f"shows nothing: {error}", "fetch it again, or remove the case"
            ) from error
        if (filled := np.count_nonzero(made.brightness)) < FEWEST:
            low, high = made.ends
            what = (
                f"shows {filled} shades between {low:g} and {high:g}: it is a mask, or has one extreme value"
            )
            raise BadCaseError(case.scan, what, "replace it by the scan, without padding")
        if not len(made.slices):
            what = f"has no mask pixel left at data.resize = {self.size}"
            raise BadCaseError(case.mask, what, "raise data.resize")
        self._keep(key, made)
        return made

    def _key(self, scan: bytes, mask: bytes) -> str:
        digest = hashlib.sha256(f"prostate slices {FORMAT} {self.size}\n".encode())
        for content in (scan, mask):
            digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()

    def _keep(self, key: str, made: CaseSlices) -> None:
        if self.notes:
            return  # it failed before
        try:
            self.cache.store(key, vars(made))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            self.notes.append(
                f"{self.cache.folder}: prepared slices cannot be kept ({reason}) and are made again at every start; "
                "set FEDUNLEARN_CACHE to a folder that can be written to"
            )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except IsADirectoryError as error:
        raise BadCaseError(path, "is a folder", "put the file of that name in its place") from error
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise BadCaseError(
            path, f"cannot be read ({reason})", "make it a file that this user can read"
        ) from error
