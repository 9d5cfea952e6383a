"""A volume cut into the slices that a two-dimensional network sees.

Settings of PUF's code: intensities clipped at the volume's 99th percentile, scaled to [0, 1] and rounded to 256
grey levels; three neighbouring slices as channels; only slices with prostate in them. Ours: at either end of a
volume the slice itself stands in for the missing neighbour (theirs leaves these slices out).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from fedunlearn.data.prostate.grey_levels import tally
from fedunlearn.data.prostate.volumes import Volume
from fedunlearn.data.slice_source import WHITE
from fedunlearn.data.source import Indices

FORMAT = 2
"""Raised by one whenever the same volume would be cut into other numbers: arrays in caches are then made again."""

CLIP = 0.99
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class CaseSlices:
    """One case's slices.

    Attributes
    ----------
    planes : ndarray
        uint8, (p, size, size): grey levels of the slices with prostate and their neighbours, each of them once.
    neighbours : ndarray
        int64, (n, 3): the planes below, at and above each slice.
    masks : ndarray
        uint8, (n, size, size): 1 where there is prostate, and there is some in each.
    slices : ndarray
        int64, (n,): heights in the volume, ascending.
    spacing : ndarray
        float32, (2,): millimetres per pixel, down a column and along a row.
    brightness : ndarray
        int64: how many voxels of the whole scan there are of each step of brightness, see ``grey_levels``.
    ends : ndarray
        float64, (2,): the intensities between which these steps lie.
    """

    planes: Bytes
    neighbours: Indices
    masks: Bytes
    slices: Indices
    spacing: npt.NDArray[np.float32]
    brightness: Indices
    ends: npt.NDArray[np.float64]


class FeaturelessError(ValueError):
    """A volume in which (almost) all voxels have the same intensity."""


def cut(volume: Volume, size: int) -> CaseSlices:
    """Cut a volume into the slices that show prostate, `size` pixels wide and high.

    The field of view is stretched to a square where it is none; ``spacing`` says so. A slice counts as showing
    prostate if a pixel of its mask is left after resizing, so that the result may be without slices.

    Raises
    ------
    FeaturelessError
        There is nothing to scale to [0, 1].
    """
    low, high = ends(volume.intensities)
    levels = scaled(volume.intensities, low, high)
    masks = nearest(volume.mask, size)
    shown = np.flatnonzero(masks.any(axis=(1, 2)))
    heights = np.clip(shown[:, None] + np.array([-1, 0, 1]), 0, len(levels) - 1)
    wanted = np.unique(heights)
    _, rows, columns = volume.intensities.shape
    stretch = np.array([rows / size, columns / size])
    return CaseSlices(
        planes=np.rint(WHITE * bilinear(levels[wanted], size)).astype(np.uint8),
        neighbours=np.searchsorted(wanted, heights).astype(np.int64),
        masks=masks[shown].astype(np.uint8),
        slices=shown.astype(np.int64),
        spacing=(np.array(volume.spacing) * stretch).astype(np.float32),
        brightness=tally(levels),
        ends=np.array([low, high]),
    )


def ends(intensities: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return the least intensity and the 99th percentile, at which they are clipped.

    Raises
    ------
    FeaturelessError
        The two are the same.
    """
    low, high = float(intensities.min()), float(np.quantile(intensities, CLIP))
    if not high > low:
        raise FeaturelessError("at least 99 % of the voxels have the same intensity")
    return low, high


def scaled(intensities: npt.NDArray[np.float32], low: float, high: float) -> npt.NDArray[np.float32]:
    """Return intensities clipped at their ``ends``, the least as 0 and the largest left as 1."""
    clipped = np.minimum(intensities, np.float32(high)).astype(np.float64)
    return np.clip((clipped - low) / (high - low), 0, 1).astype(np.float32)


def nearest(masks: npt.NDArray[np.bool_], size: int) -> npt.NDArray[np.bool_]:
    """Resize masks, (n, rows, columns), to squares: a pixel is what lies at its centre."""
    rows, columns = (
        np.floor((np.arange(size) + 0.5) * length / size).astype(np.int64) for length in masks.shape[1:]
    )
    return masks[:, rows[:, None], columns]


def bilinear(planes: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    """Resize planes, (n, rows, columns), to squares; where they shrink, pixels are averages (antialiasing)."""
    if not len(planes):
        return np.empty((0, size, size), dtype=np.float32)
    batch = torch.from_numpy(np.ascontiguousarray(planes))[None]
    resized = functional.interpolate(
        batch, size=(size, size), mode="bilinear", align_corners=False, antialias=True
    )
    array: npt.NDArray[np.float32] = resized[0].clamp_(0, 1).numpy()
    return array
