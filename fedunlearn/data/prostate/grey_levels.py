"""How often a scan's grey levels occur: by that a patient is known again, and padding is found.

The tally is of brightness between the least value and the 99th percentile, in steps that no whole number of grey
levels falls on the border of. Order and direction of axes, type, compression, header and any factor or offset of the
voxels leave it as it is; scans of two patients never share it.
"""

from __future__ import annotations

import hashlib
import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from fedunlearn.data.pixels import WHITE
from fedunlearn.data.source import Indices
from fedunlearn.plurals import counted

STEPS = 100 * math.pi
FEWEST = 9
"""Steps that a scan fills at least; with fewer it is a mask, or all of it is squeezed beside one extreme value."""
WIDEST_GAP = 0.5
"""Of the brightness: where no voxel lies in more than that, what is on the far side of it is no tissue."""


def tally(scaled: npt.NDArray[np.float32]) -> Indices:
    """Return how many voxels, in [0, 1], there are of each step of brightness: int64."""
    steps = np.floor(scaled.ravel() * STEPS).astype(np.int64)
    return np.bincount(steps, minlength=math.floor(STEPS) + 1).astype(np.int64, copy=False)


def identity(counts: Indices) -> str:
    """Return the SHA-256 (hex) of a tally: the same for every copy of a scan."""
    return hashlib.sha256(np.ascontiguousarray(counts, dtype="<i8").tobytes()).hexdigest()


def padding(counts: Indices, low: float, high: float) -> str | None:
    """Say which end of the brightness lies so far from all else that few grey levels are left; None: neither does.

    Parameters
    ----------
    counts : ndarray
        The tally.
    low, high : float
        The values that its ends stand for.
    """
    filled = np.flatnonzero(counts)
    gap, below = max((above - below, below) for below, above in pairwise(filled.tolist()))
    if gap <= WIDEST_GAP * STEPS:
        return None
    at_the_bottom = np.count_nonzero(filled <= below) <= len(filled) / 2
    end, apart = (low, counts[: below + 1]) if at_the_bottom else (high, counts[below + 1 :])
    left = max(1, round((1 - gap / STEPS) * (WHITE + 1)))
    return (
        f"{counted(int(apart.sum()), f'voxel of about {end:g} lies', f'voxels of about {end:g} lie')} far from all "
        f"others, which are left {left} of {WHITE + 1} grey levels; if that is padding, give it the value of the "
        "background"
    )
