"""What a client does, without a word of messages: the contract between tasks (``clients/``) and engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from torch import Tensor

from fedunlearn.evaluation.histograms import Tally, Withheld
from fedunlearn.federation.answers import Config
from fedunlearn.models.flat import FlatModel
from fedunlearn.training import LocalResult, StackResult


class ClientRoutine(Protocol):
    """One worker's resident model and data, and how any client of the federation trains on them.

    An engine makes one per worker and calls it from that worker alone. The same code answers Flower's messages
    (``fedunlearn/clients/app.py``).
    """

    @property
    def model(self) -> FlatModel:
        """The resident model. The engine puts the global weights there before it calls :meth:`train`."""
        ...

    def train(self, client: int, kind: str, config: Config, tensors: Mapping[str, Tensor]) -> LocalResult:
        """Train the model in place, as this client, from the weights it holds; or run what the config says instead.

        Parameters
        ----------
        client
            Whose data to train on; or the number of a part of somebody's, who is then named in the config.
        kind
            ``train``, or ``train.forget`` where the client takes part in its own forgetting.
        config
            What the round tells its clients: ``round``, ``lr``, ``seed``; ``assignment``, if any; what their
            :class:`~fedunlearn.federation.jobs.Job` says, if they have one.
        tensors
            What the job sends along; not to be changed.

        Returns
        -------
        LocalResult
            Of no examples, and the model as it was, where an assignment leaves none.
        """
        ...

    def train_stack(self, clients: Sequence[int], start: Tensor, config: Config) -> StackResult:
        """Train many clients at once, all from the weights ``start``; see :mod:`fedunlearn.training.stacked`.

        The same as :meth:`train` one by one, up to rounding. Only asked for under ``numerics = "fast"``, and only to
        train: routines are run one by one.
        """
        ...

    def tally(self, client: int, config: Config | None = None) -> Tally | Withheld:
        """Count what the model makes of this client's own data, without a trace on the model; never raise.

        With a config that has an assignment, of those data.

        Only asked for of clients to forget, in live federations.
        """
        ...


RoutineFactory = Callable[[], ClientRoutine]
"""Makes a worker's routine, in the worker's own thread or process."""
