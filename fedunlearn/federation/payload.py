"""What travels and how it is summed: a model on the wire, a client's contribution, sums that never reorder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from flwr.common.constant import SType
from torch import Tensor

BLOCK = 64
"""Consecutive client numbers that are summed together."""

PARAMETERS = "parameters"
BUFFER_PREFIX = "buffers/"


class TensorArray(Array):
    """A Flower ``Array`` that carries a reference to a tensor and serialises it only if bytes are asked for.

    Within one process nothing is copied: sender and receiver must treat the tensor as read-only. When Flower
    sends it to another process it becomes an ordinary ``Array`` holding one ``np.save`` of the whole tensor.
    """

    def __init__(self, tensor: Tensor) -> None:
        tensor = tensor.detach()
        # Past Flower's __setattr__, which would look for a hash to discard at each of them.
        self.__dict__.update(
            tensor=tensor,
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tuple(tensor.shape),
            stype=SType.NUMPY,
        )

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The tensor as Flower's NumPy serialisation."""
        buffer = BytesIO()
        np.save(buffer, self.numpy(), allow_pickle=False)
        return buffer.getvalue()

    def numpy(self) -> Any:
        """Return the tensor as a NumPy array, without a copy where it is on the CPU."""
        return self.__dict__["tensor"].cpu().numpy()

    def deflate(self) -> bytes:
        """Return the wire form of the ordinary ``Array`` of the same content."""
        return Array(self.dtype, self.shape, self.stype, self.data).deflate()


def tensor_of(array: Array) -> Tensor:
    """Return an array's tensor: the very one it refers to, or a decoded copy if it came over a wire."""
    if isinstance(array, TensorArray):
        return array.__dict__["tensor"]  # type: ignore[no-any-return]
    return torch.from_numpy(array.numpy())


@dataclass(frozen=True)
class ModelState:
    """A model's parameters as one flat vector, and its buffers (BatchNorm statistics, counters) by name."""

    vector: Tensor
    buffers: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Payload size on the wire, the same in every engine."""
        tensors = [self.vector, *self.buffers.values()]
        return sum(t.numel() * t.element_size() for t in tensors)


def pack(state: ModelState) -> ArrayRecord:
    """Return the one record a model travels in: ``parameters`` and ``buffers/<name>``."""
    # Entry by entry: a record made from a dictionary copies every array into one that holds bytes.
    record = ArrayRecord()
    record[PARAMETERS] = TensorArray(state.vector)
    for name, value in state.buffers.items():
        record[BUFFER_PREFIX + name] = TensorArray(value)
    return record


def unpack(record: ArrayRecord) -> ModelState:
    """Return the model in a record that :func:`pack` made, on either side of a wire."""
    buffers = {
        key.removeprefix(BUFFER_PREFIX): tensor_of(array)
        for key, array in record.items()
        if key.startswith(BUFFER_PREFIX)
    }
    return ModelState(tensor_of(record[PARAMETERS]), buffers)


@dataclass(frozen=True)
class Contribution:
    """One client's answer to a round.

    Attributes
    ----------
    client : int
        The client's number, 0 ≤ client.
    num_examples : int
        n_k, the rows it trained on: its weight in every sum.
    delta : Tensor
        Δ_k = w_k − w, the pseudo-gradient, shape ``(num_parameters,)``.
    buffers : Mapping[str, Tensor]
        The buffers after local training (values, not differences).
    """

    client: int
    num_examples: int
    delta: Tensor
    buffers: Mapping[str, Tensor] = field(default_factory=dict)


class _Block:
    """Σ n_k Δ_k of one block, added in client order."""

    def __init__(self) -> None:
        self.last_client = -1
        self.num_examples = 0
        self.delta: Tensor | None = None
        self.buffers: dict[str, Tensor] = {}

    def add(self, c: Contribution) -> None:
        if c.client <= self.last_client:
            raise ValueError(f"client {c.client} added after client {self.last_client}: add in client order")
        self.last_client = c.client
        self.num_examples += c.num_examples
        if self.delta is None:
            self.delta = c.delta * c.num_examples
        else:
            self.delta.add_(c.delta, alpha=c.num_examples)
        for name, value in c.buffers.items():
            _accumulate(self.buffers, name, value * c.num_examples if value.is_floating_point() else value)


def _accumulate(into: dict[str, Tensor], name: str, value: Tensor) -> None:
    """Floating-point buffers add up; counters keep the maximum."""
    if name not in into:
        into[name] = value.clone()
    elif value.is_floating_point():
        into[name] += value
    else:
        torch.maximum(into[name], value, out=into[name])


class BlockSum:
    """Unnormalised Σ n_k Δ_k and Σ n_k over clients, always added in the same order.

    Clients are summed in blocks of 64 consecutive client numbers, each block in client order, then the blocks
    in order. Floating-point addition is not associative: because of this fixed order every engine and every
    placement of clients gets the same bits.
    """

    def __init__(self) -> None:
        self._blocks: dict[int, _Block] = {}

    @classmethod
    def of(cls, contributions: Iterable[Contribution]) -> BlockSum:
        """Sum the contributions; the order they are given in does not matter.

        Raises
        ------
        ValueError
            If two contributions are of the same client.
        """
        total = cls()
        for contribution in sorted(contributions, key=lambda c: c.client):
            total.add(contribution)
        return total

    def add(self, contribution: Contribution) -> None:
        """Add one client; within a block of 64 clients must come in ascending order."""
        self._blocks.setdefault(contribution.client // BLOCK, _Block()).add(contribution)

    def merge(self, other: BlockSum) -> None:
        """Take over another sum's blocks, which must be other blocks than this one's."""
        if shared := self._blocks.keys() & other._blocks.keys():
            raise ValueError(f"blocks {sorted(shared)} are in both sums")
        self._blocks |= other._blocks

    @property
    def num_examples(self) -> int:
        """Σ n_k."""
        return sum(block.num_examples for block in self._blocks.values())

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def weighted_sum(self, like: Tensor) -> Tensor:
        """Return Σ n_k Δ_k as a new tensor: zeros of ``like``'s shape when there are no clients."""
        total: Tensor | None = None
        for number in sorted(self._blocks):
            delta = self._blocks[number].delta
            assert delta is not None
            total = delta.clone() if total is None else total.add_(delta)
        return torch.zeros_like(like) if total is None else total

    def mean_buffers(self) -> dict[str, Tensor]:
        """Return Σ n_k b_k / Σ n_k for floating-point buffers, and the maximum for counters."""
        total: dict[str, Tensor] = {}
        for number in sorted(self._blocks):
            for name, value in self._blocks[number].buffers.items():
                _accumulate(total, name, value)
        n = self.num_examples
        return {name: value / n if value.is_floating_point() else value for name, value in total.items()}


class OrderedSum:
    """A :class:`BlockSum` fed by answers in whatever order they arrive.

    An answer waits only until every smaller client number has answered or failed, so a round needs memory for
    the stragglers' overtakers, not for all clients.
    """

    def __init__(self, expected: Iterable[int]) -> None:
        self.sum = BlockSum()
        self._expected = sorted(expected, reverse=True)
        self._arrived: dict[int, Contribution | None] = {}

    def put(self, client: int, contribution: Contribution | None) -> None:
        """Take a client's answer, or ``None`` if it failed."""
        self._arrived[client] = contribution
        while self._expected and self._expected[-1] in self._arrived:
            ready = self._arrived.pop(self._expected.pop())
            if ready is not None:
                self.sum.add(ready)
