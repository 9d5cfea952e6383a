"""Sums over clients that never reorder: the same bits from every engine, worker count and order of arrival."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

BLOCK = 64
"""Consecutive client numbers that are summed together."""

PIECE = 1 << 18
"""Elements worked on at a time: large enough for a call to cost nothing, small enough for a processor's caches."""


def pieces_of(vector: Tensor) -> Sequence[Tensor]:
    """Return views of a vector that together are the vector, as large as it is good to work on."""
    if vector.device.type != "cpu" or len(vector) <= PIECE:
        return (vector,)
    return torch.split(vector, PIECE)


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


def all_finite(vector: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor Inf.

    One reduction instead of a mask as large as the model; only a suspicious sum is looked at closely.
    """
    return math.isfinite(vector.sum().item()) or bool(torch.isfinite(vector).all())


def norm_of(vector: Tensor) -> float:
    """Return ‖v‖₂, summed in float64 piece by piece: the same bits wherever the vector lies."""
    return math.sqrt(math.fsum(map(_square, pieces_of(vector))))


def _square(piece: Tensor) -> float:
    return float(torch.linalg.vector_norm(piece, dtype=torch.float64).item()) ** 2


class _Block:
    """Σ n_k Δ_k of one block, added in client order."""

    def __init__(self) -> None:
        self.last_client = -1
        self.num_examples = 0
        self.delta: Tensor | None = None
        self._pieces: Sequence[Tensor] = ()  # of ``delta``
        self.buffers: dict[str, Tensor] = {}

    def add(self, c: Contribution) -> None:
        self._account(c.client, c.num_examples, c.buffers)
        if self.delta is None:
            self.delta = c.delta * c.num_examples
        else:
            self.delta.add_(c.delta, alpha=c.num_examples)

    def add_trained(
        self,
        client: int,
        num_examples: int,
        trained: Sequence[Tensor],
        start: Sequence[Tensor],
        buffers: Mapping[str, Tensor],
        *,
        reset: bool,
        measured: bool,
    ) -> float:
        self._account(client, num_examples, buffers)
        squares: list[float] = []
        first = self.delta is None
        if self.delta is None:
            self.delta = start[0].new_empty(sum(map(len, start)))
            self._pieces = pieces_of(self.delta)
        for w_k, w, total in zip(trained, start, self._pieces, strict=True):
            delta = w_k.sub_(w)
            if measured:
                squares.append(_square(delta))
            if first:
                torch.mul(delta, num_examples, out=total)
            else:
                total.add_(delta, alpha=num_examples)
            if reset:
                w_k.copy_(w)
        return math.sqrt(math.fsum(squares))

    def add_stack(self, clients: Sequence[int], num_examples: Sequence[int], deltas: Tensor) -> None:
        for client, n in zip(clients, num_examples, strict=True):
            self._account(client, n, {})
        weights = torch.tensor(num_examples, dtype=deltas.dtype).to(deltas.device)
        if self.delta is None:
            self.delta = weights @ deltas
        else:
            self.delta.addmv_(deltas.T, weights)

    def _account(self, client: int, num_examples: int, buffers: Mapping[str, Tensor]) -> None:
        if client <= self.last_client:
            raise ValueError(f"client {client} added after client {self.last_client}: add in client order")
        self.last_client = client
        self.num_examples += num_examples
        for name, value in buffers.items():
            _accumulate(self.buffers, name, value * num_examples if value.is_floating_point() else value)


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
        # Σ over all blocks before ``_folded``, which are gone: memory for one block, not for all.
        self._total = _Block()
        self._folded = 0

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
        self._block(contribution.client).add(contribution)

    def add_trained(
        self,
        client: int,
        num_examples: int,
        trained: Sequence[Tensor],
        start: Sequence[Tensor],
        buffers: Mapping[str, Tensor],
        *,
        reset: bool,
        measured: bool = False,
    ) -> float:
        """Add one client's Δ = trained − start without ever holding it: bit for bit what :meth:`add` does.

        Parameters
        ----------
        trained, start : sequences of Tensors
            :func:`pieces_of` w_k and w. The trained weights are used up: with ``reset`` they are ``start`` again
            afterwards, for the next client, else meaningless.
        measured : bool
            Whether ‖Δ‖₂ is wanted, which takes another look at the model.

        Returns
        -------
        float
            ‖Δ‖₂ as :func:`norm_of` gives it; 0 if it was not wanted.
        """
        block = self._block(client)
        return block.add_trained(
            client, num_examples, trained, start, buffers, reset=reset, measured=measured
        )

    def add_stack(self, clients: Sequence[int], num_examples: Sequence[int], deltas: Tensor) -> None:
        """Add many clients' Δ at once, shape (clients, num_parameters); ascending clients without buffers.

        One matrix product per block: the terms are added in another order than by :meth:`add`.
        """
        at = 0
        while at < len(clients):
            number = clients[at] // BLOCK
            end = at
            while end < len(clients) and clients[end] // BLOCK == number:
                end += 1
            self._block(clients[at]).add_stack(clients[at:end], num_examples[at:end], deltas[at:end])
            at = end

    def merge(self, other: BlockSum) -> None:
        """Take over another sum's blocks, which must be other blocks than this one's."""
        if other._folded:
            raise ValueError("the other sum has been folded: its blocks are gone")
        if shared := self._blocks.keys() & other._blocks.keys():
            raise ValueError(f"blocks {sorted(shared)} are in both sums")
        if early := [number for number in other._blocks if number < self._folded]:
            raise ValueError(f"blocks {sorted(early)} come after later ones were summed")
        self._blocks |= other._blocks

    def fold(self, before: int) -> None:
        """Sum up all blocks that hold only clients < ``before``, none of which may be added to any more.

        What is kept is one sum instead of a vector per block; the bits are those of never folding.
        """
        upto = before // BLOCK
        for number in sorted(n for n in self._blocks if n < upto):
            _append(self._total, self._blocks.pop(number))
        self._folded = max(self._folded, upto)

    @property
    def num_examples(self) -> int:
        """Σ n_k."""
        return self._total.num_examples + sum(block.num_examples for block in self._blocks.values())

    def __bool__(self) -> bool:
        return self._total.delta is not None or bool(self._blocks)

    def is_finite(self) -> bool:
        """Whether no sum holds NaN or Inf: what any client put in stays in."""
        sums = [self._total, *self._blocks.values()]
        return all(
            all_finite(tensor)
            for block in sums
            for tensor in ([] if block.delta is None else [block.delta, *block.buffers.values()])
        )

    def weighted_sum(self, like: Tensor) -> Tensor:
        """Return Σ n_k Δ_k as a new tensor: zeros of ``like``'s shape when there are no clients."""
        deltas = self._deltas()
        if not deltas:
            return torch.zeros_like(like)
        total = deltas[0].clone()
        for delta in deltas[1:]:
            total.add_(delta)
        return total

    def mean(self) -> Tensor:
        """Return Σ n_k Δ_k / Σ n_k as a new tensor; there must be clients."""
        return self.weighted_sum(like=self._deltas()[0]).div_(self.num_examples)

    def step_from(self, w: Tensor) -> Tensor:
        """Return w + Σ n_k Δ_k / Σ n_k as a new tensor; there must be clients."""
        first, *others = self._deltas()
        total = self.weighted_sum(like=w) if others else first
        return torch.addcdiv(w, total, w.new_tensor(self.num_examples))  # one pass over the model

    def mean_buffers(self) -> dict[str, Tensor]:
        """Return Σ n_k b_k / Σ n_k for floating-point buffers, and the maximum for counters."""
        total = {name: value.clone() for name, value in self._total.buffers.items()}
        for number in sorted(self._blocks):
            for name, value in self._blocks[number].buffers.items():
                _accumulate(total, name, value)
        n = self.num_examples
        return {name: value / n if value.is_floating_point() else value for name, value in total.items()}

    def _block(self, client: int) -> _Block:
        number = client // BLOCK
        if number < self._folded:
            raise ValueError(f"client {client} comes after its block was summed up")
        block = self._blocks.get(number)
        if block is None:
            block = self._blocks[number] = _Block()
        return block

    def _deltas(self) -> list[Tensor]:
        """Return the sums to add up, in order."""
        blocks = [self._total, *(self._blocks[number] for number in sorted(self._blocks))]
        return [block.delta for block in blocks if block.delta is not None]


def _append(total: _Block, block: _Block) -> None:
    """Add a whole block to the sum of those before it."""
    total.num_examples += block.num_examples
    if total.delta is None:
        total.delta = block.delta
    elif block.delta is not None:
        total.delta.add_(block.delta)
    for name, value in block.buffers.items():
        _accumulate(total.buffers, name, value)


class OrderedSum:
    """A :class:`BlockSum` fed by answers in whatever order they arrive.

    An answer waits only until every smaller client number has answered or failed, so a round needs memory for
    the stragglers' overtakers, not for all clients.
    """

    def __init__(self, expected: Iterable[int]) -> None:
        self.sum = BlockSum()
        self._expected = sorted(expected, reverse=True)
        self._arrived: dict[int, Contribution | BlockSum | None] = {}

    def put(self, client: int, contribution: Contribution | None) -> None:
        """Take a client's answer, or ``None`` if it failed."""
        self._arrived[client] = contribution
        self._go_on()

    def put_sum(self, clients: Sequence[int], total: BlockSum) -> None:
        """Take the finished sum over whole blocks: of those of ``clients`` (ascending) that did not fail."""
        self._arrived[clients[0]] = total
        self._arrived |= dict.fromkeys(clients[1:])
        self._go_on()

    def _go_on(self) -> None:
        while self._expected and self._expected[-1] in self._arrived:
            ready = self._arrived.pop(self._expected.pop())
            if isinstance(ready, BlockSum):
                self.sum.merge(ready)
            elif ready is not None:
                self.sum.fold(ready.client)
                self.sum.add(ready)
        if self._expected:
            self.sum.fold(self._expected[-1])
