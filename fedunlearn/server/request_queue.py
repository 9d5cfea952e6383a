"""The forget requests of one federation: the ledger outside, their progress inside, and how the two agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from logging import WARNING
from typing import Any

from flwr.common.logger import log

from fedunlearn import plurals
from fedunlearn.errors import RunError, UserError
from fedunlearn.federation.answers import DID_NOT_ANSWER, REFUSED
from fedunlearn.parts import NONE as NO_PARTS
from fedunlearn.parts import Parts
from fedunlearn.requests import NOTHING_OF_IT, OPEN, Ledger, Move, RequestRecord
from fedunlearn.server.plan import RoundPlan
from fedunlearn.server.recovery import RequestProgress

Decide = Callable[[tuple[int, ...], frozenset[int], int], RoundPlan]
"""Plans a round, given whom it is to forget, who must not train, and how many rounds of that are behind."""

ROLLED_BACK = "rolled back by the guard: "
DIVERGED = "diverged: "
"""What the ledger says before the reason."""


class Docket:
    """What one federation has been asked to forget, and how far each request has come.

    The checkpoint is the authority on progress, the ledger on what was asked and planned. A round goes through
    :meth:`plan` → :meth:`begin` → :meth:`record_failures` → :meth:`apply` → (checkpoint) → :meth:`reconcile`; each
    of them may be repeated after a crash and then changes nothing.

    Parameters
    ----------
    ledger, branch
        Where requests come from and plans are committed to, and this federation's name there.
    forgets
        Whether the strategy removes a client's influence, or only leaves the client out.
    max_attempts
        After so many rounds in which its own clients did not answer, a request has failed.
    num_clients
        Requests may name clients from 0 up to this, exclusively. From here on the ledger takes no others for this
        branch, and none for a branch that no docket has been made for.
    parts
        The parts of clients' data that requests may name: wherever clients are named here, parts may be.
    """

    def __init__(
        self,
        ledger: Ledger,
        branch: str,
        *,
        forgets: bool,
        max_attempts: int,
        num_clients: int,
        parts: Parts = NO_PARTS,
    ) -> None:
        self.ledger = ledger
        self.branch = branch
        self.requests: tuple[RequestProgress, ...] = ()
        # What follows from the requests, and of which ones: a federation may have had thousands.
        self._forgotten: frozenset[int] = frozenset()
        self._index: dict[str, RequestProgress] = {}
        self._forgotten_of: tuple[RequestProgress, ...] = self.requests
        self._index_of: tuple[RequestProgress, ...] = self.requests
        self.forgets = forgets
        self._max_attempts = max_attempts
        self._num_clients = num_clients
        self._parts = parts
        ledger.takes_requests(branch, self.knows)

    def knows(self, number: int) -> bool:
        """Whether a number is one of a client, or of a part of a client's data."""
        return 0 <= number < self._num_clients or number in self.parts

    def unknown(self, request: RequestRecord) -> str:
        """Say which clients a request names that do not exist; an empty string: none."""
        unknown = [k for k in request.clients if not self.knows(k)]
        last = self._num_clients - 1
        return f"there is no {plurals.clients(unknown)}: clients are numbered 0 to {last}" if unknown else ""

    def check_known(self) -> None:
        """Refuse requests of before that name clients that do not exist.

        Raises
        ------
        UserError
            With one line that names the first of them.
        """
        for record in self.ledger.requests(self.branch, OPEN):
            if why := self.unknown(record):
                raise UserError(f"request {record.id!r} of branch {self.branch!r}: {why}")

    def restore(self, account: Iterable[Mapping[str, Any]]) -> None:
        """Take over what a checkpoint says of the requests."""
        self.requests = tuple(map(RequestProgress.from_dict, account))

    def account(self) -> list[dict[str, Any]]:
        """Return what the checkpoint is to say of the requests."""
        return [r.to_dict() for r in self.requests]

    @property
    def parts(self) -> Parts:
        """The parts of clients' data that requests may name."""
        return self._parts

    @property
    def settled(self) -> frozenset[int]:
        """All clients, and parts, of which there is nothing to forget any more: by those that overlap with them."""
        return self.forgotten

    @property
    def forgotten(self) -> frozenset[int]:
        """All clients, and parts, that have been applied to the weights."""
        if self._forgotten_of is not self.requests:
            applied = (r for r in self.requests if r.unlearned_round is not None)
            self._forgotten = frozenset(k for r in applied for k in r.clients)
            self._forgotten_of = self.requests
        return self._forgotten

    @property
    def _by_id(self) -> Mapping[str, RequestProgress]:
        if self._index_of is not self.requests:
            self._index, self._index_of = {r.id: r for r in self.requests}, self.requests
        return self._index

    def clients_of(self, plan: RoundPlan) -> frozenset[int]:
        """Return all clients that a plan's requests name."""
        return frozenset(k for id_ in plan.requests for k in self._progress(id_, plan.round).clients)

    @property
    def under_way(self) -> tuple[RequestProgress, ...]:
        """The requests in the middle of an unlearning of several rounds."""
        return tuple(r for r in self.requests if r.under_way)

    def going_on(self) -> tuple[RequestProgress, ...]:
        """Return the requests whose unlearning the next round goes on with; none, too, where it is broken off."""
        under_way = self.under_way
        states = (self.ledger.request(self.branch, r.id).state for r in under_way)
        return under_way if OPEN.issuperset(states) else ()

    def break_off(self) -> None:
        """Note that the unlearning under way is not gone on with: its requests are where they were before it."""
        self.requests = tuple(_unbegun(r) if r.under_way else r for r in self.requests)

    def due(self, round: int) -> list[RequestProgress]:
        """Return the requests that the plan of a round has to serve, where no unlearning is under way."""
        return [self._progress(r.id, round) for r in self.ledger.due(self.branch, round)]

    def is_open(self, round: int) -> bool:
        """Whether any request is still to be served in this round or later, or is being recovered from."""
        if any(r.outcome is None for r in self.requests) or self.due(round):
            return True
        # Planned and not executed: killed in between, the request is no longer due and not yet known here.
        return self.ledger.plan(self.branch, round) is not None

    def _progress(self, id_: str, round: int) -> RequestProgress:
        """Return a request as the checkpoint knows it, or as the ledger does if it is new."""
        if (known := self._by_id.get(id_)) is not None:
            return known
        record = self.ledger.request(self.branch, id_)
        # A live request names no round: it arrived during the round before the one that serves it.
        return RequestProgress(id_, record.clients, round - 1 if record.at_round is None else record.at_round)

    def plan(self, round: int, decide: Decide) -> tuple[RoundPlan, dict[int, str]]:
        """Return the committed plan of a round, and who is known to have failed in it.

        A plan that is there already is returned as it is, without asking again. Otherwise ``decide(to_forget, gone,
        step)`` makes one, given the clients whose forgetting is due and all that must not train. One that is not a
        further step of the unlearning under way, if there is one, breaks that off.
        """
        if (record := self.ledger.plan(self.branch, round)) is not None:
            return RoundPlan.from_dict(record.plan), dict(record.failed)
        # One transaction: nobody withdraws a request between the question and the plan that serves it.
        with self.ledger.batch():
            due = []
            for request in self.due(round):
                if why := self.unknown(self.ledger.request(self.branch, request.id)):
                    # From another process, which could not know better.
                    self.ledger.transition(self.branch, request.id, "refused", round=round, detail=why)
                elif self._covered(request.clients).issuperset(request.clients):
                    self.ledger.transition(self.branch, request.id, "duplicate", round=round)
                else:
                    due.append(request)
            gone = frozenset(k for r in (*self.requests, *due) for k in r.clients)
            going_on = self.going_on()
            due = list(going_on) or due
            # Never twice: a second negation would push the model away from what it has just been rid of.
            asked = {k for r in due for k in r.clients}
            asked = {k for k in asked if self.parts.owner(k) == k or self.parts.owner(k) not in asked}
            to_forget = tuple(sorted(asked - self._covered(asked)))
            plan = self._decided_by(decide, to_forget, gone, going_on)
            plan = replace(plan, requests=tuple(r.id for r in due))
            self.ledger.commit_plan(self.branch, round, plan.to_dict())
        return plan, {}

    def _decided_by(
        self,
        decide: Decide,
        to_forget: tuple[int, ...],
        gone: frozenset[int],
        going_on: tuple[RequestProgress, ...],
    ) -> RoundPlan:
        """Return the method's plan, as far as it is the method's."""
        step = max((r.steps for r in going_on), default=0)
        plan = decide(to_forget, gone, step)
        # There is nothing to go on with where nobody is forgotten, or who is left out is not.
        return replace(plan, step=step, completes=plan.completes or not (plan.forget and self.forgets))

    def _covered(self, numbers: Iterable[int]) -> frozenset[int]:
        """Return those clients and parts that have been forgotten: themselves, or as a part of a client that was."""
        forgotten = self.forgotten
        return frozenset(n for n in numbers if n in forgotten or self.parts.owner(n) in forgotten)

    def begin(self, plan: RoundPlan) -> None:
        """Note that the unlearning of the plan's requests is about to be sent out."""
        if self.forgets and plan.requests:
            moves = [Move(id_, "unlearning", plan.round) for id_ in plan.requests]
            self.ledger.transition_many(self.branch, moves)

    def record_failures(self, plan: RoundPlan, before: Mapping[int, str], failed: Mapping[int, str]) -> None:
        """Commit who failed, so that the round can be repeated exactly.

        Parameters
        ----------
        before
            Who failed when this round was executed before a crash; empty at its first execution.

        Raises
        ------
        RunError
            If a repeated round lacks a client that had answered: it cannot be repeated.
        """
        if before and failed != before:
            new = sorted(failed.keys() - before.keys())
            raise RunError(
                f"round {plan.round} is being repeated after an interruption, and clients {new} failed "
                f"that had answered before; resume once they answer again. Client {new[0]}: {failed[new[0]]}"
            )
        if failed and not before:
            self.ledger.record_failures(self.branch, plan.round, failed)

    def apply(
        self,
        plan: RoundPlan,
        failed: Mapping[int, str],
        *,
        reference: float | None = None,
        refused: str = "",
        delivered: Iterable[int] = (),
    ) -> None:
        """Note the plan's requests as unlearned, or as one attempt more if a client to forget failed.

        Requests of one round are never half applied: if one client fails, all of them wait. In the middle of an
        unlearning of several rounds its next round is then tried again; if one of them ends meanwhile, the others
        begin anew.

        Parameters
        ----------
        reference
            Quality of the model before the round, where recovery is judged by it. Whoever takes over a recovery
            takes over its reference: the model in the middle of it is no measure.
        refused
            Why the guard has rolled the round back; empty: it has not. A request that was alone in it has ended; of
            several, one may be to blame and the others are not, so that each is tried again alone.
        delivered
            Whose updates the forgetting consisted of. Only a live federation looks at it.
        """
        requests = {r.id: r for r in self.requests}
        held = not failed.keys().isdisjoint(plan.forget)
        broken_off = bool(refused) or self.breaks_off(plan, failed)
        if reference is not None:
            reference = max([reference, *(r.reference or 0.0 for r in self.requests if r.recovering)])
        for id_ in plan.requests:
            r = replace(self._progress(id_, plan.round), held=False)
            if broken_off:
                r = _unbegun(r)
            if refused and len(plan.requests) == 1:
                requests[id_] = replace(r, outcome="refused", ended_round=plan.round, reason=refused)
                continue
            if refused:
                requests[id_] = replace(r, attempts=r.attempts + 1, alone=True, reason=refused)
                continue
            if not held and not plan.completes:
                requests[id_] = replace(r, steps=plan.step + 1, reason="")
                continue
            if not held:
                requests[id_] = replace(r, unlearned_round=plan.round, reference=reference, reason="")
                continue
            # A request that only waited for another one's client has not failed.
            own = not failed.keys().isdisjoint(r.clients)
            r = replace(
                r, attempts=r.attempts + 1, unanswered=r.unanswered + own, reason="", held=r.under_way
            )
            if self._gives_up(r, failed):
                why = _why_failed(r, failed)
                log(WARNING, "request %s failed after %d attempts: %s", id_, r.unanswered, why)
                r = replace(r, outcome="failed", ended_round=plan.round, reason=why)
            requests[id_] = r
        self.requests = tuple(requests.values())

    def breaks_off(self, plan: RoundPlan, failed: Mapping[int, str]) -> bool:
        """Whether an unlearning of several rounds ends with this one, in which these clients failed."""
        if not plan.several or failed.keys().isdisjoint(plan.forget):
            return False
        tried = (self._progress(id_, plan.round) for id_ in plan.requests)
        own = (r for r in tried if not failed.keys().isdisjoint(r.clients))
        return any(self._gives_up(replace(r, unanswered=r.unanswered + 1), failed) for r in own)

    def _gives_up(self, request: RequestProgress, failed: Mapping[int, str]) -> bool:
        """Whether a request has failed for good, of which clients have failed once more."""
        return request.unanswered >= self._max_attempts

    def diverge(self, round: int, why: str) -> None:
        """End every request that is open, or still to come: the weights are no numbers since ``round``."""
        known = {r.id for r in self.requests}
        # "failed": killed after this and before the run noted its end, the round has diverged once more.
        states = OPEN | {"failed"}
        others = (r.id for r in self.ledger.requests(self.branch) if r.id not in known and r.state in states)
        self.requests = tuple(
            replace(r, outcome="diverged", ended_round=round, reason=why) if r.outcome is None else r
            for r in (*self.requests, *(self._progress(id_, round) for id_ in others))
        )
        self.reconcile(round)

    def reconcile(self, round: int) -> None:
        """Bring the ledger to what the checkpoint of ``round`` says."""
        if states := self._states(round):
            before = {"diverged": DIVERGED, "failed": ""}
            reasons = {
                r.id: before.get(r.outcome or "", ROLLED_BACK) + r.reason for r in self.requests if r.reason
            }
            reasons |= {r.id: NOTHING_OF_IT for r in self.requests if r.outcome == "empty"}
            self.ledger.reconcile(self.branch, states, reasons=reasons)

    def _states(self, round: int) -> dict[str, tuple[str, int]]:
        """Return what the ledger is to say of the requests → (state, the round in which it was entered)."""
        states = {}
        for r in self.requests:
            state = r.ledger_state(forgets=self.forgets)
            if state is not None:
                applied = state in ("recovering", "excluded") and r.outcome != "empty"
                entered = r.unlearned_round if applied else r.ended_round
                states[r.id] = (state, round if entered is None else entered)
        return states


def _unbegun(request: RequestProgress) -> RequestProgress:
    """Return a request as it was before the first round of its unlearning."""
    return replace(request, steps=0, held=False)


def _why_failed(request: RequestProgress, failed: Mapping[int, str]) -> str:
    """Say in one line which of a request's clients failed first, and how; an error is no more than mentioned."""
    client = min(failed.keys() & set(request.clients))
    why = failed[client]
    # A traceback may name files and data: it stays with the round's failures.
    one_line = why == DID_NOT_ANSWER or (why.startswith(REFUSED) and "\n" not in why)
    return f"client {client}: {why if one_line else 'its node answered with an error'}"
