"""The forget requests of a live federation: they arrive while it runs, and clients come and go."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from logging import WARNING
from typing import Any, Literal

from flwr.common.logger import log

from fedunlearn.config import RequestsConfig
from fedunlearn.federation.answers import OTHER_WORK
from fedunlearn.live.participation import Participation
from fedunlearn.live.triage import Ended, Federation, OpenRequest, Triage, triage
from fedunlearn.parts import Parts
from fedunlearn.requests import Ledger, Move
from fedunlearn.server.plan import RoundPlan
from fedunlearn.server.recovery import RequestProgress
from fedunlearn.server.request_queue import ROLLED_BACK, Decide, Docket

OPEN = ("received", "waiting")
LONGEST_REST = 300.0
"""Seconds after which a client that failed at its forgetting is asked again at the latest."""

Outlook = Literal["work", "wait", "done"]
"""Whether a federation that has had its rounds has something to do, must wait to do it, or has ended."""


class LiveDocket(Docket):
    """A docket whose requests are taken up as ``[requests]`` says; see :func:`fedunlearn.live.triage.triage`.

    What depends on the clock, or on who can be reached, is decided once, when a round is planned, and is in the plan
    or in the ledger's transitions that are committed with it.

    Parameters
    ----------
    ledger, branch, forgets
        See :class:`~fedunlearn.server.request_queue.Docket`.
    max_attempts
        After so many rounds in which a request's own clients failed, they count as out of reach.
    rules
        ``[requests]``.
    num_clients
    absent
        Returns the clients that cannot be reached now.
    stored
        Returns client → round of the update that is stored of it.
    online
        Whether whoever is to be forgotten takes part in it, and is waited for.
    clock
        Unix seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        branch: str,
        *,
        forgets: bool,
        max_attempts: int,
        rules: RequestsConfig,
        num_clients: int,
        online: bool = True,
        absent: Callable[[], frozenset[int]] = frozenset,
        stored: Callable[[], Mapping[int, int]] = dict,
        clock: Callable[[], float] = time.time,
    ) -> None:
        # A request never fails for lack of answers here: its clients wait, or are excluded, as the rules say.
        super().__init__(ledger, branch, forgets=forgets, max_attempts=sys.maxsize, num_clients=num_clients)
        self._absent = absent
        self._online = online
        self._patience = max_attempts
        self._rules = rules
        self._stored = stored
        self._clock = clock
        self._rest_until: dict[str, float] = {}
        self._told: dict[str, tuple[str, int]] = {}
        self._learned_from = Participation()
        self._counted = 0  # rounds whose participants are in there

    @property
    def recovering(self) -> bool:
        """Whether a request's recovery goes on."""
        return any(r.recovering for r in self.requests)

    @property
    def contributed(self) -> frozenset[int]:
        """Clients that the model has learned from, and parts of their data that were not left out of it always."""
        last = self.ledger.last_round(self.branch)
        for round in range(self._counted + 1, last):
            self._learned_from.add(self.ledger.plan(self.branch, round))
            self._counted = round
        # Who failed in the last one may still change, if it has to be executed again.
        found = self._learned_from
        if last > self._counted:
            found = found.copy().add(self.ledger.plan(self.branch, last))
        return found.numbers(self.parts)

    @property
    def parts(self) -> Parts:
        self._parts = self.ledger.parts(self.branch, self._parts)
        return self._parts

    @property
    def settled(self) -> frozenset[int]:
        """The forgotten, and parts of clients' data that were left out before the model could learn from them."""
        parts = self.parts
        return self.forgotten.union(set(parts) - self.contributed) if parts else self.forgotten

    def gone(self) -> frozenset[int]:
        """Return all clients that must not train, were the next round planned now."""
        return self._decide().gone

    def planned(self, round: int) -> RoundPlan | None:
        """Return the plan of a round, less who is on record as failed in it, if there is one."""
        record = self.ledger.plan(self.branch, round)
        if record is None:
            return None
        plan = RoundPlan.from_dict(record.plan)
        return replace(plan, train=tuple(k for k in plan.train if k not in record.failed))

    def outlook(self, round: int) -> Outlook:
        """Say what there is to do once ``train.rounds`` are over; what ends without a round is ended here."""
        # One that is broken off takes a round, too: it leads back to the weights from before it.
        if self.recovering or self.under_way or self.ledger.plan(self.branch, round) is not None:
            return "work"
        with self.ledger.batch():
            verdict = self._decide()
            if verdict.serve:
                return "work"
            self._carry_out(verdict, round - 1)
        return "wait" if self.ledger.requests(self.branch, OPEN) else "done"

    def plan(self, round: int, decide: Decide) -> tuple[RoundPlan, dict[int, str]]:
        """Return the committed plan of a round, or decide about every open request and commit one."""
        if (record := self.ledger.plan(self.branch, round)) is not None:
            return RoundPlan.from_dict(record.plan), dict(record.failed)
        # One transaction: nobody withdraws a request between the question and the plan that serves it.
        with self.ledger.batch():
            verdict = self._decide()
            self._carry_out(verdict, round)
            serve = [self._progress(id_, round) for id_ in verdict.serve]
            asked = {k for r in serve for k in r.clients}
            whole = self.parts.clients(asked)
            to_forget = {k for k in asked if k in whole or self.parts.owner(k) not in whole}
            to_forget -= self._covered(to_forget)
            if self.forgets:
                to_forget &= self.contributed
            failing = {k for r in serve if r.unanswered >= self._patience for k in r.clients}
            stored = self._stored_of(to_forget & (self._absent() | failing)) if self._online else {}
            going_on = tuple(serve) if verdict.goes_on else ()
            plan = self._decided_by(decide, tuple(sorted(to_forget)), verdict.gone, going_on)
            plan = replace(plan, requests=verdict.serve, stored=stored)
            self.ledger.commit_plan(self.branch, round, plan.to_dict())
        return plan, {}

    def record_failures(self, plan: RoundPlan, before: Mapping[int, str], failed: Mapping[int, str]) -> None:
        """Commit who failed; in a repeated round, also who answered before and does not any more.

        Nobody has seen what came of the round before it was interrupted, so that it may come out otherwise, as long
        as the record says how.
        """
        if before and failed != before:
            self.ledger.record_failures(self.branch, plan.round, failed, amend=True)
        elif failed and not before:
            self.ledger.record_failures(self.branch, plan.round, failed)

    def apply(self, plan: RoundPlan, failed: Mapping[int, str], **options: Any) -> None:
        """Note what became of the plan's requests; those whose own clients failed rest before the next attempt.

        A request none of whose clients had anything to forget by has ended with nothing unlearned.
        """
        super().apply(plan, failed, **options)
        self._end_empty(plan, frozenset(options.get("delivered", ())))
        for r in self.requests:
            if r.id in plan.requests and r.outcome is None and not failed.keys().isdisjoint(r.clients):
                rest = min(2.0**r.unanswered, LONGEST_REST)
                self._rest_until[r.id] = self._clock() + rest
                log(WARNING, "request %s: one of its clients failed, next attempt in %.0f s", r.id, rest)

    def _gives_up(self, request: RequestProgress, failed: Mapping[int, str]) -> bool:
        """Whether a client did something else than was asked, time and again, and nothing can stand in for it.

        It would go on doing so, and the request would wait for ever.
        """
        own = {k for k in request.clients if failed.get(k, "").startswith(OTHER_WORK)}
        return request.unanswered >= self._patience and bool(own) and not self._stored_of(own)

    def _end_empty(self, plan: RoundPlan, delivered: frozenset[int]) -> None:
        """End those of the plan's requests that were applied, as far as it goes, and came to nothing."""

        def ended(r: RequestProgress) -> RequestProgress:
            asked = set(plan.forget).intersection(r.clients)
            applied = r.id in plan.requests and r.unlearned_round == plan.round
            if not applied or not asked.intersection(self.parts) or asked & delivered:
                return r
            return replace(r, unlearned_round=None, reference=None, outcome="empty", ended_round=plan.round)

        self.requests = tuple(map(ended, self.requests))

    def objection_on_record(self, plan: RoundPlan) -> str | None:
        """Return what the guard had against this round; nothing ("") if it stood, None if it has not been judged.

        It has where rounds are executed from the record: from an export, or after an older checkpoint was put back.
        """
        entries = {
            entry.to_state: entry.detail
            for id_ in plan.requests
            for entry in self.ledger.life(self.branch, id_)
            if entry.round == plan.round
        }
        if not entries.keys().isdisjoint(("recovering", "excluded")):
            return ""
        # Of several requests each waits to be tried alone.
        said = entries.get("refused", entries.get("waiting"))
        return None if said is None else said.removeprefix(ROLLED_BACK) or "as recorded"

    def reconcile(self, round: int) -> None:
        """Bring the ledger to what the checkpoint says, and end requests for what has thereby been forgotten."""
        with self.ledger.batch():
            super().reconcile(round)
            for record in self.ledger.requests(self.branch, OPEN):
                if self._covered(record.clients).issuperset(record.clients):
                    self.ledger.transition(self.branch, record.id, "duplicate", round=round)

    # -- what is decided ----------------------------------------------------------------------------------

    def _decide(self) -> Triage:
        """Decide about every open request, as things stand."""
        known = {r.id: r for r in self.requests}
        now = self._clock()
        requests = []
        unknown: dict[str, tuple[Ended, str]] = {}
        under_way = {r.id for r in self.going_on()}
        for record in self.ledger.requests(self.branch, (*OPEN, "unlearning") if under_way else OPEN):
            if record.state == "unlearning" and record.id not in under_way:
                continue
            if why := self.unknown(record):
                unknown[record.id] = ("refused", why)
                continue
            progress = known.get(record.id)
            unanswered = 0 if progress is None else progress.unanswered
            requests.append(
                OpenRequest(
                    id=record.id,
                    clients=frozenset(record.clients),
                    arrived_at=record.arrived_at,
                    waits=record.state == "waiting",
                    held=unanswered > 0,
                    rests=now < self._rest_until.get(record.id, 0.0),
                    failing=unanswered >= self._patience,
                    alone=progress is not None and progress.alone,
                    under_way=record.id in under_way,
                )
            )
        self._forget_the_withdrawn({r.id for r in requests})
        excluded = self.ledger.named(self.branch, "excluded")
        refused = {k for r in self.requests if r.outcome in ("refused", "failed") for k in r.clients}
        absent = self._absent()
        parts, numbers = self.parts, {k for r in requests for k in r.clients}
        away = absent.union(k for k in numbers if parts.owner(k) in absent)
        federation = Federation(
            num_clients=self._num_clients,
            forgotten=self.forgotten | self._covered(numbers),
            left_out=frozenset(excluded | refused),
            # A method that only leaves clients out asks nothing of them.
            unreachable=away if self.forgets and self._online else frozenset(),
            stored=frozenset(self._stored_of(absent)),
            contributed=self.contributed if self.forgets else None,
            recovering=self.recovering,
            now=now,
            parts=parts,
        )
        verdict = triage(requests, federation, self._rules)
        return replace(verdict, ended={**unknown, **verdict.ended}) if unknown else verdict

    def _stored_of(self, clients: frozenset[int] | set[int]) -> dict[int, int]:
        """Return those clients that may be forgotten by a stored update → the round of it."""
        if self._rules.offline != "stored" or not clients:
            return {}
        stored = {k: round for k, round in sorted(self._stored().items()) if k in clients}
        # One from an execution that was interrupted, in whose repetition the client failed, is none: executed from
        # the record, the round would not have it.
        return {k: round for k, round in stored.items() if self._may_stand_in(k, round)}

    def _may_stand_in(self, client: int, round: int) -> bool:
        """Whether a client's update of a round is one to forget it by.

        It must not be of data that have been forgotten by themselves since: nothing is forgotten twice.
        """
        record = self.ledger.plan(self.branch, round)
        if record is None:
            return True
        left_out = RoundPlan.from_dict(record.plan).without.get(client, ())
        own = {k for k in self.forgotten if k != client and self.parts.owner(k) == client}
        return client not in record.failed and own.issubset(left_out)

    def _carry_out(self, verdict: Triage, round: int) -> None:
        """Write down what was decided without a round."""
        moves = [Move(id_, state, round, why) for id_, (state, why) in verdict.ended.items()]
        moves += [Move(id_, "waiting", round, self._why_waiting(id_)) for id_ in verdict.waiting]
        for move in moves:
            log(WARNING, "request %s: %s, %s", move.request_id, move.to, move.detail)
        self.ledger.transition_many(self.branch, moves)

    def _why_waiting(self, id_: str) -> str:
        of_parts = bool(self.ledger.request(self.branch, id_).parts)
        if of_parts and self._rules.offline == "stored":
            return (
                "a client cannot be reached, and its stored update covers more than what is to be forgotten"
            )
        return "a client cannot be reached"

    def _forget_the_withdrawn(self, open_: set[str]) -> None:
        """Drop what is known of requests that were tried, and ended otherwise before they were applied.

        Of one that ended in the middle of its unlearning not before that is broken off.
        """
        self.requests = tuple(
            r
            for r in self.requests
            if r.unlearned_round is not None or r.outcome is not None or r.id in open_ or r.under_way
        )

    def _states(self, round: int) -> dict[str, tuple[str, int]]:
        """Return what is new for the ledger: a federation may have had thousands of requests."""
        states = super()._states(round)
        new = {id_: state for id_, state in states.items() if self._told.get(id_) != state}
        self._told = states
        return new
