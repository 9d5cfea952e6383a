"""How a live federation is conducted: clients come and go, requests arrive, and another server may take over."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from logging import INFO, WARNING
from pathlib import Path
from statistics import median_low
from types import MappingProxyType
from typing import Any, Protocol

import torch
from flwr.common.logger import log
from flwr.serverapp import Grid

from fedunlearn import plurals
from fedunlearn.certificates.seals import file_digest
from fedunlearn.config import Experiment
from fedunlearn.evaluation.scored import QUALITY
from fedunlearn.federation.answers import TALLY, Answers
from fedunlearn.federation.payload import ModelState
from fedunlearn.federation.sums import BlockSum, Contribution
from fedunlearn.live import guard
from fedunlearn.live.evaluation import LiveEvaluation, Respondents
from fedunlearn.live.measurements import RequestMeasures
from fedunlearn.live.nodes import NodeRoster, Nodes
from fedunlearn.live.request_queue import LiveDocket
from fedunlearn.live.screening import FEWEST, Known, screened, screened_forgetting, too_many
from fedunlearn.live.stored_updates import FOLDER, StoredUpdates
from fedunlearn.parts import Assignment
from fedunlearn.requests import Ledger
from fedunlearn.runs.checkpoints import Checkpoints, Prepared, Snapshot
from fedunlearn.server.hooks import Conduct
from fedunlearn.server.plan import RoundPlan
from fedunlearn.server.request_queue import Docket
from fedunlearn.server.rounds import QuorumMissedError, RoundInProgress, floats
from fedunlearn.server.settings import Settings

POLL_SECONDS = 1.0
"""How often a server that has nothing to do looks whether it has."""
SAY_AGAIN_SECONDS = 60.0
FIRST_ANSWERS_SECONDS = 60.0
"""So long a starting server waits for nodes that are there to say whom they serve."""
NEVER_SEEN_SECONDS = 60.0
"""After so long a server says which clients have never appeared."""
LONGEST_PAUSE = 60.0
"""Seconds before a round that missed its quorum is repeated, at most."""


class Clerk(Protocol):
    """Signs the trail, issues certificates, purges what is to be purged: :mod:`fedunlearn.certificates.issuer`."""

    def attend(self, round: int) -> None:
        """Do all that is due after a round; after a crash simply called again."""
        ...

    def seal(self, prepared: Prepared, kept: Mapping[str, str], *, complete: bool) -> None:
        """Note which checkpoint is a round's: before it is published, and once more, `complete`, when it is.

        With it which files of earlier rounds the round writes: place → SHA-256 (hex).
        """
        ...


class LiveConduct(Conduct):
    """A live federation's: see :class:`~fedunlearn.server.hooks.Conduct` for when each method is called.

    Parameters
    ----------
    experiment
        A live one.
    ledger
        Of which the caller has taken the lease.
    folder
        The run directory, for stored updates.
    evaluation
        Measures the global model.
    roster
        Who serves which client; None: nodes are believed.
    declared
        Client → the most examples that it has, as far as the operator says.
    clerk, measures
        None: nothing is signed or certified; nothing is measured of a request, and nobody is told.
    clock
        Unix seconds.
    pause
        Waits for so many seconds.
    """

    tolerant = True
    wants_norms = True
    wants_updates = True  # whether one is out of bounds is known when all have arrived

    def __init__(
        self,
        experiment: Experiment,
        ledger: Ledger,
        folder: Path,
        evaluation: LiveEvaluation,
        *,
        roster: NodeRoster | None = None,
        declared: Mapping[int, int] = MappingProxyType({}),
        clerk: Clerk | None = None,
        measures: RequestMeasures | None = None,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__()
        assert experiment.requests is not None and experiment.guard is not None
        self._rules = experiment.requests
        self._guard = experiment.guard
        self._quality = f"validation-{QUALITY[experiment.data.task]}"
        self._ledger = ledger
        self._evaluation = evaluation
        self._clerk = clerk
        self._measures = measures
        self._clock = clock
        self._pause_for = pause
        self._stored = StoredUpdates(folder / FOLDER)
        self._who = Nodes(experiment.federation.num_clients, roster)
        self._num_clients = experiment.federation.num_clients
        self._declared = declared
        self._seen = Known()  # by the last round that is complete
        self._shown = self._seen  # by the round at hand
        self._known: float | None = (
            None  # quality of the model, in the middle of an unlearning of the one before
        )
        self._leaving: frozenset[int] = frozenset()  # whom the round at hand forgets
        self._before: ModelState | None = None  # the weights that the round at hand started from
        self._metrics_before: dict[str, float] = {}
        self._missed = 0
        self._said: dict[str, float] = {}
        self._name_missing_at = clock() + NEVER_SEEN_SECONDS

    # -- who is there, and what there is to do ------------------------------------------------------------

    @property
    def absent(self) -> frozenset[int]:  # type: ignore[override]
        return self._who.absent

    def docket(
        self, ledger: Ledger, branch: str, settings: Settings, *, forgets: bool, online: bool
    ) -> LiveDocket:
        return LiveDocket(
            ledger,
            branch,
            forgets=forgets,
            online=online,
            max_attempts=settings.max_attempts,
            rules=self._rules,
            num_clients=settings.num_clients,
            absent=lambda: self._who.absent,
            stored=self._stored.rounds,
            clock=self._clock,
        )

    def nodes(self, grid: Grid) -> Mapping[int, int]:
        return self._who.there

    def begins(self, round: int, docket: Docket, model: ModelState, grid: Grid) -> None:
        """Find out who is there, and do what an earlier server may not have come to any more."""
        assert isinstance(docket, LiveDocket)
        self._evaluation.bind(
            Respondents(grid, lambda: self._retained(docket), lambda: self._assigned(docket), self._too_many)
        )
        deadline = time.monotonic() + FIRST_ANSWERS_SECONDS
        self._who.refresh(grid)
        while self._who.answering and time.monotonic() < deadline:
            self._pause_for(POLL_SECONDS)
            self._who.refresh(grid)
        self._tell(round, docket, model, {}, grid)
        self._attend(round)

    def next_round(self, round: int, num_rounds: int, docket: Docket, settings: Settings, grid: Grid) -> bool:
        assert isinstance(docket, LiveDocket)
        if round > num_rounds:
            return False
        while True:
            self._check_lease()
            self._who.refresh(grid)
            if self._clock() >= self._name_missing_at:
                self._name_missing(docket)
            self._attend(round - 1)  # a request may end without a round, and while none can begin
            if round > settings.train.rounds:
                outlook = docket.outlook(round)
                if outlook == "done":
                    self._attend(round - 1)
                    self._name_missing(docket)
                    return False
                if outlook == "wait":
                    self._wait("open requests wait for their window or for clients")
                    continue
            if why := self._too_few(round, docket, settings):
                self._wait(why)
                continue
            return True

    def _check_lease(self) -> None:
        """Stop if another has taken over: a server that only waits writes nothing that would tell it."""
        with self._ledger.fenced():
            pass

    def missed(self, error: QuorumMissedError, grid: Grid) -> None:
        """Wait and repeat the round, unless nobody can have been lost: then it would go the same way again."""
        if self._who.fixed:
            raise error
        pause = min(2.0**self._missed, LONGEST_PAUSE)
        self._missed += 1
        log(WARNING, "%s; the round is repeated in %.0f s", error, pause)
        self._pause_for(pause)

    def _too_few(self, round: int, docket: LiveDocket, settings: Settings) -> str:
        """Say why a round would miss its quorum now, or return an empty string."""
        if not self._who.absent:
            return ""
        there = self._who.there.keys()
        plan = docket.planned(round)
        if plan is not None:
            asked, reached = len(plan.train), len(there & set(plan.train))
        else:
            may_train = set(range(self._num_clients)) - docket.gone()
            asked = min(settings.slots, len(may_train))
            reached = min(asked, len(there & may_train))
        if not asked or reached / asked >= settings.quorum:
            return ""
        return f"round {round} needs {settings.quorum:g} of {asked} clients, {reached} can be reached"

    def _name_missing(self, docket: LiveDocket) -> None:
        """Say which clients have never appeared: once after a minute, and once at the end."""
        self._name_missing_at = math.inf
        if missing := sorted(self._who.never_seen - docket.gone()):
            log(
                WARNING,
                "%s %s never appeared",
                plurals.clients(missing),
                "have" if len(missing) > 1 else "has",
            )

    def _wait(self, why: str) -> None:
        now = time.monotonic()
        if now - self._said.get(why, -SAY_AGAIN_SECONDS) >= SAY_AGAIN_SECONDS:
            self._said[why] = now
            log(INFO, "waiting: %s", why)
        self._pause_for(POLL_SECONDS if not self._who.fixed else min(POLL_SECONDS, 0.2))

    def _retained(self, docket: LiveDocket) -> Mapping[int, int]:
        """Return the nodes of the clients that may be asked to measure.

        Whom the round at hand forgets is not among them: the model is compared with itself before, on the same data.
        """
        gone = docket.gone() | self._leaving
        return {client: node for client, node in self._who.there.items() if client not in gone}

    def _assigned(self, docket: LiveDocket) -> Mapping[int, Assignment]:
        """Return what those clients measure on that do not simply measure on all of their data: on what is left."""
        if not (parts := docket.parts):
            return {}
        there = tuple(self._who.there)
        return parts.assignments(there, parts.without(there, (), docket.gone() | self._leaving, ()))

    def _too_many(self, client: int, num_examples: int) -> str:
        """Say why a client cannot have measured on so many examples: its word counts by them."""
        if not self._guard.enabled:
            return ""
        known = self._shown.examples.values()
        usual = median_low(known) if len(known) >= FEWEST else None
        return too_many(client, num_examples, usual, self._shown, self._guard, self._declared)

    # -- a round's answers --------------------------------------------------------------------------------

    def diverged(self, round: int, why: str) -> None:
        """Go on: the weights stay as they were, and a client that fails is asked again."""
        log(WARNING, "round %d: %s", round, why)

    def screened(
        self, plan: RoundPlan, docket: Docket, answers: Answers, model: ModelState, *, routine: bool
    ) -> dict[int, str]:
        assert not isinstance(answers.retained, BlockSum)
        refused, self._shown = screened(
            answers.retained, model, self._seen, self._guard, self._declared, answers.norms
        )
        parts = docket.parts
        return refused | screened_forgetting(
            answers.forgetting,
            {number: parts.owner(number) for number in plan.forget},
            self._seen,
            self._guard,
            self._declared,
            fewer={parts.owner(number) for number in parts},
            trained=not routine,
        )

    def told(self, plan: RoundPlan) -> dict[str, Any]:
        self._leaving = frozenset(plan.forget)
        # Counted before anything is forgotten: in the first of several rounds.
        return {TALLY: True} if plan.asked_to_forget and plan.step == 0 else {}

    def forgetting(self, plan: RoundPlan, answers: Answers, model: ModelState) -> list[Contribution]:
        stored = [self._stored.load(k, round, model.vector) for k, round in plan.stored.items()]
        everybody = sorted([*answers.forgetting, *stored], key=lambda c: c.client)
        usual = self._seen.usual_norm
        if usual is None:
            usual = guard.usual_norm(answers.norms, None)
        return guard.bounded(everybody, usual, self._guard)

    def reference(self, plan: RoundPlan, docket: Docket, model: ModelState, *, round: int) -> float | None:
        self._before = model
        without = self._evaluation.without(docket.clients_of(plan), round, model)
        self._metrics_before = floats(without)
        return self._metrics_before.get(self._quality, self._known)

    def keep(self, plan: RoundPlan, updates: Sequence[Contribution]) -> None:
        if self._rules.store_updates:
            self._stored.keep(plan.round, updates)

    def objection(
        self, current: RoundInProgress, docket: Docket, model: ModelState, metrics: Mapping[str, float]
    ) -> str:
        assert isinstance(docket, LiveDocket)
        on_record = docket.objection_on_record(current.plan)
        if on_record is not None:
            return on_record
        if not current.plan.completes:  # what it does to the quality is judged once it is complete
            return guard.objection(model, None, None, self._guard)
        after = metrics.get(self._quality)
        if after is None and self._rules.validation == "server":
            return "the model has diverged" if self._guard.enabled else ""
        return guard.objection(model, current.reference, after, self._guard)

    def learn(self, current: RoundInProgress, docket: Docket, metrics: Mapping[str, float]) -> None:
        self._missed = 0
        if not docket.under_way:
            self._known = metrics.get(self._quality, self._known)
        self._seen = self._shown.without(docket.forgotten)
        if self._measures is not None and current.plan.round > 0:
            # Of a round that forgot nobody, what it started from is not looked at.
            before = self._before or ModelState(torch.empty(0))
            tallies = current.answers.tallies
            self._measures.note(
                current.plan,
                docket.requests,
                tallies,
                before,
                self._metrics_before,
                metrics,
                parts=docket.parts,
            )
        self._before, self._metrics_before = None, {}

    # -- what is kept -------------------------------------------------------------------------------------

    def account(self) -> dict[str, Any]:
        return {"quality": self._known, "guard": self._seen.to_dict()}

    def restore(self, meta: Mapping[str, Any]) -> None:
        self._known = meta.get("quality")
        self._seen = self._shown = Known.from_dict(meta["guard"])

    def writing(self) -> AbstractContextManager[None]:
        return self._ledger.fenced()

    def save(
        self,
        checkpoints: Checkpoints | None,
        snapshot: Snapshot,
        report: Callable[[], None],
        kept: Mapping[str, Path] = MappingProxyType({}),
    ) -> None:
        """Report the round and publish its checkpoint while nobody can take over."""
        prepared = None if checkpoints is None else checkpoints.prepare(snapshot)
        digests: Mapping[str, str] = {}
        if prepared is not None and self._clerk is not None:
            digests = {place: file_digest(path) for place, path in kept.items()}
            self._clerk.seal(prepared, digests, complete=False)
        with self.writing():
            report()
            if checkpoints is not None and prepared is not None:
                checkpoints.publish(prepared)
                if self._clerk is not None:
                    self._clerk.seal(prepared, digests, complete=True)

    # -- when it is done ----------------------------------------------------------------------------------

    def completed(
        self,
        current: RoundInProgress,
        docket: Docket,
        model: ModelState,
        metrics: Mapping[str, float],
        grid: Grid,
    ) -> None:
        """Tell those who have been forgotten, then let the clerk attend."""
        round = current.plan.round
        self._tell(round, docket, model, metrics, grid)
        self._attend(round)

    def _attend(self, round: int) -> None:
        if self._clerk is not None:
            self._clerk.attend(round)

    def _tell(
        self, round: int, docket: Docket, model: ModelState, metrics: Mapping[str, float], grid: Grid
    ) -> None:
        """Tell whoever has been forgotten and does not know yet; who was only left out has not been."""
        if self._measures is not None and docket.forgets:
            nodes, parts = self._who.there, docket.parts
            self._measures.tell(round, docket.requests, model, metrics, grid, nodes, parts=parts)
