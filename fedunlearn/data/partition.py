"""Who holds which rows: every row in one array, client by client, so that clients cost next to nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import overload

import numpy as np
import numpy.typing as npt

from fedunlearn.data.source import Indices


@dataclass(frozen=True, eq=False)
class Partition(Sequence[Indices]):
    """A sequence of row numbers per client, kept in two arrays however many clients there are.

    ``partition[k]`` is a view of client k's part of ``rows``: nothing is copied, and nobody may change it.

    Attributes
    ----------
    rows : ndarray
        int64, (dealt rows,). Client by client, ascending within a client; no row twice.
    offsets : ndarray
        int64, (clients + 1,). Client k holds ``rows[offsets[k] : offsets[k + 1]]``.
    """

    rows: Indices
    offsets: Indices

    @classmethod
    def of_owners(cls, owners: npt.NDArray[np.integer], num_clients: int) -> Partition:
        """Return the partition in which row r belongs to client ``owners[r]``, or to nobody where that is −1."""
        owners = np.asarray(owners, dtype=np.int64)
        # Stable: a client's rows stay in ascending order. Nobody's sort before everybody else's.
        order = np.argsort(owners, kind="stable").astype(np.int64, copy=False)
        sizes = np.bincount(owners + 1, minlength=num_clients + 1)
        nobodys = int(sizes[0])
        offsets = np.cumsum(sizes, dtype=np.int64) - nobodys
        return cls(order[nobodys:], offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, client: int) -> Indices: ...
    @overload
    def __getitem__(self, client: slice) -> tuple[Indices, ...]: ...
    def __getitem__(self, client: int | slice) -> Indices | tuple[Indices, ...]:
        numbers = range(len(self))[client]  # refuses what is out of range, counts from the end where negative
        if isinstance(numbers, range):
            return tuple(self[k] for k in numbers)
        return self.rows[self.offsets[numbers] : self.offsets[numbers + 1]]

    def __iter__(self) -> Iterator[Indices]:
        return (self.rows[first:last] for first, last in pairwise(self.offsets.tolist()))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Partition):
            return NotImplemented
        return np.array_equal(self.offsets, other.offsets) and np.array_equal(self.rows, other.rows)

    __hash__ = None  # type: ignore[assignment]  # arrays can be changed

    @property
    def sizes(self) -> Indices:
        """Rows per client, int64, (clients,)."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> Indices:
        """The client that holds each entry of ``rows``, int64, (dealt rows,)."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.sizes)

    def select(self, clients: Iterable[int]) -> Partition:
        """Return the partition of these clients alone, in the order given; their rows are copied."""
        numbers = np.fromiter(clients, dtype=np.int64)
        sizes = self.sizes[numbers]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64, copy=False)
        shift = np.repeat(self.offsets[numbers] - offsets[:-1], sizes)
        return Partition(self.rows[np.arange(offsets[-1]) + shift], offsets)
