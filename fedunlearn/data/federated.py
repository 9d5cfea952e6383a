"""The data of a whole federation, in memory on the training device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fedunlearn.data.content import content_numbers
from fedunlearn.data.partition import Partition
from fedunlearn.data.pixels import Pixels
from fedunlearn.data.slice_index import SliceIndex as SliceIndex
from fedunlearn.data.source import Indices
from fedunlearn.parts import NONE as NO_PARTS
from fedunlearn.parts import Assignment, Parts

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
    pixels : Pixels or None
        What the images were normalised by; None where nobody knows.
    notes : tuple of str
        What was found and is not in here, such as cases left out, a line each.
    parts : Parts
        Parts of clients' data that have numbers of their own; wherever rows of clients are asked for, a part's number
        stands for its rows.
    seed : int
        The experiment's, which draws the rows of parts.
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
    pixels: Pixels | None = None
    notes: tuple[str, ...] = ()
    parts: Parts = NO_PARTS
    seed: int = 0
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
    def pixel_std(self) -> tuple[float, ...]:
        """What pixels in [0, 1] were divided by to give the images, per channel; (1.0,) where nobody knows."""
        return (1.0,) if self.pixels is None else self.pixels.std

    @property
    def in_channels(self) -> int:
        """Colour channels of an image."""
        return self.train_images.shape[1]

    @property
    def image_size(self) -> int:
        """Height and width of an image in pixels."""
        return self.train_images.shape[-1]

    def with_parts(self, parts: Parts, seed: int) -> FederatedData:
        """Return the same data, of whose clients these parts have numbers; `seed` draws their rows.

        Raises
        ------
        ConfigError
            A part names a row that its client does not have, or a class that there is not.
        """
        sizes = self.clients.sizes if parts else ()
        for number in parts:
            parts[number].check(int(sizes[parts.owner(number)]), self.num_classes)
        return replace(self, parts=parts, seed=seed)

    def without_test(self) -> FederatedData:
        """Return the same data without the test split; the validation split stands in its place as well."""
        slices = None if self.slices is None else {**self.slices, "test": self.slices["validation"]}
        return replace(
            self, test_images=self.validation_images, test_labels=self.validation_labels, slices=slices
        )

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (hex) over every number in here: two runs with equal hashes saw the same data.

        The device does not enter, the precision does; ``origin`` and ``notes`` are words about the data, and
        ``pixels`` follow from where they are from.
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

    @cached_property
    def content_numbers(self) -> Mapping[str, Indices]:
        """Per split a number for each image, int64, (n,), the same for the same pixels; of a slice its own alone."""
        splits = {"train": self.train_images, "validation": self.validation_images, "test": self.test_images}
        middle = slice(1, 2) if self.task == "segmentation" else slice(None)
        return {split: content_numbers(images[:, middle]) for split, images in splits.items()}

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

    def assigned(self, assignment: Assignment) -> tuple[Tensor, Tensor]:
        """Return the images and labels that an assignment leaves a client, copies of the training tensors' rows."""
        images, labels = self.client(assignment.client)
        rows = torch.from_numpy(assignment.rows(self._labels_of(assignment.client), self.seed)).to(
            labels.device
        )
        return images.index_select(0, rows), labels.index_select(0, rows)

    def indices_of(self, numbers: Iterable[int]) -> Indices:
        """Return the training rows that belong to any of these clients and parts, in the order of the source."""
        rows = self._rows_of(numbers)
        return rows[np.argsort(self.source_rows[rows])]

    def all_but(self, numbers: Iterable[int]) -> Indices:
        """Return the training rows that belong to clients, but to none of these and of these parts, likewise."""
        chosen = np.zeros(len(self.source_rows), dtype=bool)
        chosen[: len(self.clients.rows)] = True
        chosen[self._rows_of(numbers)] = False
        return self._in_source_order[chosen[self._in_source_order]]

    def _rows_of(self, numbers: Iterable[int]) -> Indices:
        """Return the training rows of clients and parts, each row once."""
        numbers = set(numbers)
        rows = self.clients.select(self.parts.clients(numbers)).rows
        named = [self._rows_of_part(number) for number in sorted(numbers) if number in self.parts]
        return np.unique(np.concatenate([rows, *named])) if named else rows

    def _rows_of_part(self, number: int) -> Indices:
        part = self.parts[number]
        return self.clients[part.client][part.rows(self._labels_of(part.client), self.seed)]

    def _labels_of(self, client: int) -> Indices:
        """Return the classes of a client's rows; of masks, which have every class, only how many there are counts."""
        labels = self.client(client)[1]
        if self.task == "segmentation":
            return np.zeros(len(labels), dtype=np.int64)
        return labels.cpu().numpy()

    @cached_property
    def _in_source_order(self) -> Indices:
        return np.argsort(self.source_rows)
