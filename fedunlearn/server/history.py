"""What a server keeps of earlier rounds for methods that forget by it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from fedunlearn.federation.sums import Contribution
from fedunlearn.models.state import ModelState

Which = Literal["last", "all"]
What = Literal["updates", "weights"]


@dataclass(frozen=True)
class Keeps:
    """What of ordinary rounds is kept.

    Attributes
    ----------
    which : str
        Of each client the ``last`` one, or ``all`` of the rounds that are kept.
    what : str
        ``updates`` w_k − w, or the ``weights`` w_k that a client came to.
    models : bool
        Whether the global weights that each kept round started from are kept as well.
    every : int
        Rounds 1, 1 + every, 1 + 2·every, … are kept.
    half : bool
        Whether as float16, in half of the space; what is read back is float32 again.
    """

    which: Which = "all"
    what: What = "updates"
    models: bool = False
    every: int = 1
    half: bool = False

    def keeps(self, round: int) -> bool:
        """Whether a round is kept."""
        return (round - 1) % self.every == 0


class History:
    """Clients' results by (round, client), and where asked for the global weights by round. In memory.

    What is written in a round counts from that round's checkpoint on: :meth:`revert` drops what later rounds wrote.

    Parameters
    ----------
    keeps
        None: nothing is kept.
    """

    def __init__(self, keeps: Keeps | None = None) -> None:
        self.keeps = keeps
        self._results: dict[tuple[int, int], Contribution] = {}
        self._models: dict[int, Tensor] = {}

    def rounds(self) -> tuple[int, ...]:
        """Return the rounds that something is kept of, ascending."""
        return tuple(sorted({round for round, _ in self._results}))

    def clients(self, round: int) -> tuple[int, ...]:
        """Return the clients whose results of a round are kept, ascending."""
        return tuple(sorted(client for of, client in self._results if of == round))

    def last(self, client: int) -> int | None:
        """Return the latest round that something is kept of for a client; None: there is none."""
        return max((round for round, k in self._results if k == client), default=None)

    def result(self, round: int, client: int) -> Contribution:
        """Return what is kept of a client's round; ``delta`` holds its update, or its weights, as ``keeps`` says."""
        return self._results[round, client]

    def model(self, round: int) -> Tensor:
        """Return the global weights that a kept round started from."""
        return self._models[round]

    def record(self, round: int, model: ModelState, updates: Iterable[Contribution]) -> None:
        """Keep an ordinary round's updates, as ``keeps`` says."""
        if self.keeps is None or not self.keeps.keeps(round):
            return
        for update in updates:
            if self.keeps.which == "last":
                for at in [at for at in self._results if at[1] == update.client]:
                    del self._results[at]
            kept = update.delta if self.keeps.what == "updates" else model.vector + update.delta
            kept = kept.to(torch.float16).to(kept.dtype) if self.keeps.half else kept.clone()
            self._results[round, update.client] = replace(update, delta=kept)
        if self.keeps.models:
            self._models[round] = model.vector.clone()

    def replace(self, round: int, result: Contribution) -> None:
        """Put a result in the place of what was kept of a client's round."""
        self._results[round, result.client] = result

    def forget(self, client: int) -> None:
        """Delete all that is kept of a client."""
        for at in [at for at in self._results if at[1] == client]:
            del self._results[at]
