"""The data of a whole federation, in memory on the training device."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fedunlearn.data.source import Indices


@dataclass(frozen=True, eq=False)
class FederatedData:
    """Training, validation and test images, and which training rows belong to which client.

    Batches are index slices of these tensors: there are no worker processes and no copies between host and
    device. Image tensors are normalised, floating point, (n, channels, height, width); labels int64, (n,).

    Attributes
    ----------
    clients : tuple of ndarray
        Per client its sorted int64 rows of the training tensors. No row belongs to two clients; with a
        partition read from a file some may belong to none.
    class_names : tuple of str
        One name per class.
    """

    train_images: Tensor
    train_labels: Tensor
    validation_images: Tensor
    validation_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    clients: tuple[Indices, ...]
    class_names: tuple[str, ...]
    _gathered: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

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

        The device does not enter, the precision does.
        """
        digest = hashlib.sha256()
        for name in ("train", "validation", "test"):
            for kind in ("images", "labels"):
                tensor: Tensor = getattr(self, f"{name}_{kind}").detach().cpu().contiguous()
                # Shapes and types are hashed too: the same bytes cut elsewhere are other data.
                digest.update(f"{name}_{kind} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
                digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
        for number, rows in enumerate(self.clients):
            digest.update(f"client {number} {len(rows)}\n".encode())
            digest.update(np.ascontiguousarray(rows, dtype="<i8").data)
        digest.update(repr(self.class_names).encode())
        return digest.hexdigest()

    def counts(self) -> Indices:
        """Return the number of training rows per client and class, int64, (clients, classes)."""
        labels = self.train_labels.cpu().numpy()
        rows = [np.bincount(labels[mine], minlength=self.num_classes) for mine in self.clients]
        return np.array(rows, dtype=np.int64).reshape(len(self.clients), self.num_classes)

    def client(self, number: int) -> tuple[Tensor, Tensor]:
        """Return one client's own images and labels, in row order; gathered once, then kept."""
        if number not in self._gathered:
            rows = torch.from_numpy(self.clients[number]).to(self.train_images.device)
            self._gathered[number] = (self.train_images[rows], self.train_labels[rows])
        return self._gathered[number]

    def indices_of(self, clients: Iterable[int]) -> Indices:
        """Return the sorted training rows that belong to any of these clients."""
        mine = [self.clients[number] for number in sorted(set(clients))]
        return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *mine]))

    def all_but(self, clients: Iterable[int]) -> Indices:
        """Return the sorted training rows that belong to any *other* client."""
        return self.indices_of(set(range(len(self.clients))) - set(clients))
