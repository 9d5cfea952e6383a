"""How a federation is conducted from round to round: a simulated one here, a live one in ``live.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flwr.serverapp import Grid

from fedunlearn.errors import DivergedError
from fedunlearn.federation.answers import Answers
from fedunlearn.federation.payload import ModelState
from fedunlearn.federation.sums import Contribution
from fedunlearn.requests import Ledger
from fedunlearn.runs.checkpoints import Checkpoints, Snapshot
from fedunlearn.server.messages import find_clients
from fedunlearn.server.plan import RoundPlan
from fedunlearn.server.request_queue import Docket
from fedunlearn.server.rounds import QuorumMissedError, RoundInProgress
from fedunlearn.server.settings import Settings


class Conduct:
    """A simulation's: everybody is there, requests are scripted, nobody is suspected, one server writes.

    The round loop (:meth:`fedunlearn.server.loop.RoundLoop.start`) asks this object for everything in
    which a live federation differs, so that there is one loop for both.

    Attributes
    ----------
    tolerant : bool
        Whether a client that runs out of memory has failed, instead of ending the run.
    wants_norms, wants_updates : bool
        Whether the norms of the retained updates, or these themselves, are wanted beside their sum.
    absent : frozenset[int]
        Clients that cannot be reached now.
    """

    tolerant = False
    wants_norms = False
    wants_updates = False
    absent: frozenset[int] = frozenset()

    def __init__(self) -> None:
        self._nodes: Mapping[int, int] = {}

    def docket(
        self, ledger: Ledger, branch: str, settings: Settings, *, forgets: bool, online: bool
    ) -> Docket:
        """Return the federation's requests."""
        docket = Docket(
            ledger,
            branch,
            forgets=forgets,
            max_attempts=settings.max_attempts,
            num_clients=settings.num_clients,
            parts=settings.parts,
        )
        docket.check_known()
        return docket

    def restore(self, meta: Mapping[str, Any]) -> None:
        """Take over what a checkpoint says beside its requests."""

    def account(self) -> dict[str, Any]:
        """Return what a checkpoint is to say beside its requests."""
        return {}

    def nodes(self, grid: Grid) -> Mapping[int, int]:
        """Return client number → node id of everybody who can be sent a message."""
        if not self._nodes:
            self._nodes = find_clients(grid)
        return self._nodes

    def next_round(self, round: int, num_rounds: int, docket: Docket, settings: Settings, grid: Grid) -> bool:
        """Whether there is a round to execute; a live federation waits here until there can be."""
        if round > num_rounds:
            return False
        if not settings.stop_when_recovered or round <= settings.train.rounds:
            return True
        return docket.is_open(round)

    def missed(self, error: QuorumMissedError, grid: Grid) -> None:
        """Decide what follows from too few answers: raise the error to stop, return to repeat the round."""
        raise error

    def diverged(self, round: int, why: str) -> None:
        """Decide what follows from weights that are no numbers: raise to stop, return to go on with those of before.

        Raises
        ------
        DivergedError
        """
        raise DivergedError(round, why)

    def told(self, plan: RoundPlan) -> dict[str, Any]:
        """Return what clients are told beside round, learning rate and seed."""
        return {}

    def screened(
        self, plan: RoundPlan, docket: Docket, answers: Answers, model: ModelState, *, routine: bool
    ) -> dict[int, str]:
        """Return whose sound answers are refused all the same, and why; ``model`` is what they started from.

        Parameters
        ----------
        routine
            Whether the clients to forget were asked for something else than to train as usual.
        """
        return {}

    def forgetting(self, plan: RoundPlan, answers: Answers, model: ModelState) -> list[Contribution]:
        """Return the updates to forget by, once it is on record who answered; ``model`` is what they started from."""
        return answers.forgetting

    def reference(self, plan: RoundPlan, docket: Docket, model: ModelState, *, round: int) -> float | None:
        """Return the quality that the plan's requests are to recover: of ``model``, the one after ``round``.

        It is the last one before their unlearning. Where that takes several rounds it is asked for in the first and
        in the last of them.
        """
        return None

    def keep(self, plan: RoundPlan, updates: Sequence[Contribution]) -> None:
        """Take note of the round's single updates, where they were wanted."""

    def objection(
        self, current: RoundInProgress, docket: Docket, model: ModelState, metrics: Mapping[str, float]
    ) -> str:
        """Say why the round that made this model, and forgot somebody, must not stand; empty: it may.

        With one of several rounds of an unlearning none of them stands.
        """
        return ""

    def learn(self, current: RoundInProgress, docket: Docket, metrics: Mapping[str, float]) -> None:
        """Take note of what a round has shown; its requests have been judged, and it is about to be saved."""

    def writing(self) -> AbstractContextManager[None]:
        """Return the context in which files of the run may be written."""
        return nullcontext()

    def save(
        self,
        checkpoints: Checkpoints | None,
        snapshot: Snapshot,
        report: Callable[[], None],
        kept: Mapping[str, Path] = MappingProxyType({}),
    ) -> None:
        """Report the round and save it.

        Reported first: a round that is executed again after a crash is reported again, one that was saved is never
        executed again and could not be.

        Parameters
        ----------
        kept
            What ``report`` is about to add to the history of earlier rounds: its place there → where it lies until
            then.
        """
        report()
        if checkpoints is not None:
            checkpoints.save(snapshot)

    def begins(self, round: int, docket: Docket, model: ModelState, grid: Grid) -> None:
        """Do what is to be done at a start; ``round`` rounds are complete."""

    def completed(
        self,
        current: RoundInProgress,
        docket: Docket,
        model: ModelState,
        metrics: Mapping[str, float],
        grid: Grid,
    ) -> None:
        """Do what follows once a round is saved and the ledger knows."""
