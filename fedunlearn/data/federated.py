"""The data of a whole federation, in memory on the training device."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fedunlearn.data.partition import Partition
from fedunlearn.data.slice_index import SliceIndex as SliceIndex
from fedunlearn.data.source import Indices

KEPT_VIEWS = 2048
"""So many clients' tensors are kept ready: a view weighs about a kilobyte, whatever it shows."""


@dataclass(frozen=True, eq=False)
class FederatedData:
    """Training, validation and test images, and which training rows belong to which client.

    Batches are index slices of these tensors: there are no worker processes and no copies between host and
    device. Image tensors are normalised, floating point, (n, channels, height, width). Labels are int64, (n,);
    where a class is to be told of every pixel they are masks, uint8, (n, height, width).

    Training rows lie client by client, so that a client's own data are a slice of them: 100 000 clients take no
    more memory than one. Where the order of rows matters (a sum, a draw) rows are handed out in the source's
    order, which does not depend on who holds them.

    Attributes
    ----------
    clients : Partition
        Per client its int64 rows of the training tensors, which follow the client's before. No row belongs
        to two clients; with a partition read from a file some, the last, may belong to none.
    source_rows : ndarray
        int64, (n,): each training row's place in the source's training split.
    class_names : tuple of str
        One name per class.
    task : str
        "classification", or "segmentation": labels are masks.
    origin : str
        What a user must know of where the data are from: "phantom", "synthetic"; "" for real data.
    client_names : tuple of str
        One name per client where clients have names (sites), else empty.
    slices : mapping or None
        Of medical volumes: "train", "validation" and "test" with the origin of each row.
    notes : tuple of str
        What was found and is not in here, such as cases left out, a line each.
    """

    train_images: Tensor
    train_labels: Tensor
    validation_images: Tensor
    validation_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    clients: Partition
    source_rows: Indices
    class_names: tuple[str, ...]
    task: str = "classification"
    origin: str = ""
    client_names: tuple[str, ...] = ()
    slices: Mapping[str, SliceIndex] | None = None
    notes: tuple[str, ...] = ()
    _views: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        rows = self.clients.rows
        if not np.array_equal(rows, np.arange(len(rows))):
            raise ValueError("clients: rows must lie client by client, from 0; reorder the training tensors")

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        """Colour channels of an image."""
        return self.train_images.shape[1]

    @property
    def image_size(self) -> int:
        """Height and width of an image in pixels."""
        return self.train_images.shape[-1]

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (hex) over every number in here: two runs with equal hashes saw the same data.

        The device does not enter, the precision does; ``origin`` and ``notes`` are words about the data.
        """
        digest = hashlib.sha256()
        for name in ("train", "validation", "test"):
            for kind in ("images", "labels"):
                tensor: Tensor = getattr(self, f"{name}_{kind}").detach().cpu().contiguous()
                # Shapes and types are hashed too: the same bytes cut elsewhere are other data.
                digest.update(f"{name}_{kind} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
        for name, numbers in (("offsets", self.clients.offsets), ("source_rows", self.source_rows)):
            digest.update(f"{name} {len(numbers)}\n".encode())
            digest.update(np.ascontiguousarray(numbers, dtype="<i8").data)
        digest.update(repr(self.class_names).encode())
        if self.task != "classification":
            digest.update(f"{self.task} {self.client_names!r}\n".encode())
            for split, index in sorted((self.slices or {}).items()):
                digest.update(f"{split} {len(index)}\n".encode())
                for whole in (index.site, index.case, index.slice):
                    digest.update(np.ascontiguousarray(whole, dtype="<i8").data)
                digest.update(np.ascontiguousarray(index.spacing, dtype="<f4").data)
        return digest.hexdigest()

    def counts(self, clients: Iterable[int] | None = None) -> Indices:
        """Return the number of training rows per client and class, int64, (clients, classes).

        Masks have every class in them: there is one column, of all rows, (clients, 1).

        `clients` are those to count, in that order; default: all. The table has a cell for each of their classes.
        """
        counted = self.clients if clients is None else self.clients.select(clients)
        if self.task == "segmentation":
            return counted.sizes[:, None]
        labels = self.train_labels.cpu().numpy()[counted.rows]
        cells = np.bincount(
            counted.owners * self.num_classes + labels, minlength=len(counted) * self.num_classes
        )
        return cells.astype(np.int64, copy=False).reshape(len(counted), self.num_classes)

    def client(self, number: int) -> tuple[Tensor, Tensor]:
        """Return one client's own images and labels: views of the training tensors, not to be changed."""
        found = self._views.get(number)
        if found is None:
            mine = self.clients[number]
            own = slice(int(mine[0]), int(mine[-1]) + 1) if len(mine) else slice(0, 0)
            found = (self.train_images[own], self.train_labels[own])
            if len(self._views) >= KEPT_VIEWS:
                self._views.clear()  # in one step, for threads ask at the same time
            self._views[number] = found
        return found

    def indices_of(self, clients: Iterable[int]) -> Indices:
        """Return the training rows that belong to any of these clients, in the order of the source."""
        rows = self.clients.select(set(clients)).rows
        return rows[np.argsort(self.source_rows[rows])]

    def all_but(self, clients: Iterable[int]) -> Indices:
        """Return the training rows that belong to any *other* client, in the order of the source."""
        chosen = np.zeros(len(self.source_rows), dtype=bool)
        chosen[: len(self.clients.rows)] = True
        chosen[self.clients.select(set(clients)).rows] = False
        return self._in_source_order[chosen[self._in_source_order]]

    @cached_property
    def _in_source_order(self) -> Indices:
        return np.argsort(self.source_rows)
