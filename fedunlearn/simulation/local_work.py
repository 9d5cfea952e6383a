"""What it takes a client to forget: passes over its data, the same in a forecast and in the costs of a run."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

from fedunlearn.config import Experiment
from fedunlearn.data import FederatedData
from fedunlearn.federation.local_methods import Chosen
from fedunlearn.simulation.branches import Branch
from fedunlearn.unlearning.contract import Passes


class Work(NamedTuple):
    """Of one client, in one round.

    Attributes
    ----------
    epochs : float
        Local epochs; of a local routine its passes over the data that the client works with.
    examples : float
        Training examples seen, each as often as it is.
    """

    epochs: float
    examples: float


class LocalWork:
    """Counts the work of forgetting, of one seed's clients.

    Parts of a client's data that overlap are counted as if they did not.

    Parameters
    ----------
    data
        Of the seed.
    """

    def __init__(self, experiment: Experiment, data: FederatedData) -> None:
        self.local_epochs = experiment.train.local_epochs
        self._owner = data.parts.owner
        self._sizes = data.clients.sizes
        self._parts = {number: len(data.indices_of([number])) for number in data.parts}

    def examples_of(self, parts: Collection[int]) -> int:
        """Return how many examples these parts of clients' data have."""
        return sum(self._parts[number] for number in parts)

    def forgetting(self, branch: Branch, number: int, without: Collection[int]) -> Work:
        """Return the work of whoever is forgotten in a round of a branch.

        Parameters
        ----------
        number
            A client, or a part of a client's data.
        without
            Parts of the client's data that it leaves out.
        """
        own = int(self._sizes[self._owner(number)]) - self.examples_of(without)
        forget = self._parts.get(number, own)
        passes = _passes(branch)
        if passes is None:
            return Work(self.local_epochs, self.local_epochs * forget)
        if not forget:
            return Work(0, 0)  # there is nothing to run a routine on
        retain = max(own - forget, 0)
        examples = passes.forget * forget + passes.retain * retain
        return Work(examples / (forget + retain), examples)


def whole(amount: float) -> int:
    """Return an amount of work rounded up; sums of fractions that come to a whole number are that number."""
    return math.ceil(round(amount, 6))


def _passes(branch: Branch) -> Passes | None:
    """Return how often whoever is forgotten goes over its data; None: it trains as usual."""
    if branch.method is None or branch.method.routine is None:
        return None
    chosen = Chosen.of(branch.method.routine, branch.method.settings)
    return chosen.method.passes(chosen.settings)
