"""What a source of medical volumes hands over: slices, their masks, and where each is from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedunlearn.data.slice_index import SliceIndex
from fedunlearn.data.source import Indices

WHITE = 255.0
AT_A_TIME = 64
"""Slices that are brought to floating point together: scratch memory stays small beside the result."""


@dataclass(frozen=True, eq=False)
class SliceSource:
    """Slices site by site, case by case and from the feet upwards.

    Three neighbouring slices are the channels of an image. Every slice is kept once, as grey levels: a twelfth of
    what the images weigh in float32.

    Attributes
    ----------
    planes : Tensor
        uint8, (p, size, size).
    neighbours : Tensor
        int64, (n, 3): the planes below, at and above each slice.
    masks : Tensor
        uint8, (n, size, size), 0 or 1.
    index : SliceIndex
        Of the n slices.
    class_names : tuple of str
        Of a mask's values.
    site_names : tuple of str
        By number of site.
    origin : str
        "phantom" for volumes that were made up, "" for others.
    notes : tuple of str
        A line for all that was found and is not used, and for whatever else a user should know.
    other_folders : tuple of str
        What lies beside the sites' folders and is none of theirs.
    """

    planes: Tensor
    neighbours: Tensor
    masks: Tensor
    index: SliceIndex
    class_names: tuple[str, ...]
    site_names: tuple[str, ...]
    origin: str
    notes: tuple[str, ...]
    other_folders: tuple[str, ...] = ()

    def images(self, rows: Indices, dtype: torch.dtype) -> Tensor:
        """Return the images of these rows in [0, 1], (rows, 3, size, size); made on the processor."""
        made = torch.empty((len(rows), 3, *self.planes.shape[1:]), dtype=dtype)
        wanted = self.neighbours[torch.from_numpy(rows)]
        for first in range(0, len(rows), AT_A_TIME):
            part = slice(first, first + AT_A_TIME)
            made[part] = self.planes[wanted[part]]
        return made.div_(WHITE)
