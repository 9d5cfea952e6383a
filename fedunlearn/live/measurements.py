"""What is measured of every request: before its step, after it by the forgotten clients, and at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from flwr.serverapp import Grid

from fedunlearn.evaluation.histograms import Tally, Withheld
from fedunlearn.evaluation.measures import Measures
from fedunlearn.federation.payload import ModelState
from fedunlearn.live.notifications import Messenger, stage
from fedunlearn.parts import NONE as NO_PARTS
from fedunlearn.parts import Assignment, Parts
from fedunlearn.requests import Ledger
from fedunlearn.requests.standing import Fate, fates
from fedunlearn.server.plan import RoundPlan
from fedunlearn.server.recovery import RequestProgress

NOT_ASKED_AGAIN = Withheld("a node is asked about forgotten data only once, after the step")
NOT_ASKED = Withheld("its client has been forgotten entirely and is not asked about parts of its data")
BEFORE_STEP: Mapping[Fate, Withheld] = {
    "taken": Withheld("its node sent no tally"),
    "with_client": Withheld("forgotten in this step with all data of its client and not measured separately"),
    "already": Withheld("had already been forgotten"),
    "never": Withheld("never took part in training"),
}
"""Why a client, or part, was not measured before a step that did this to it."""

ATTEMPTS = 3
"""So often a node that is there and does not answer is told, by one server; only the first time is it waited for."""


class RequestMeasures:
    """Notes the stages of requests in the ledger, and sees to it that forgotten nodes are told.

    What is known while a round is executed is noted before the round is saved (:meth:`note`): executed again after
    a crash, it is noted again. Nodes are told once it is saved (:meth:`tell`): a round that is executed again could
    need them again. Both may be repeated at any time.

    Parameters
    ----------
    ledger, branch
    messenger
    """

    def __init__(self, ledger: Ledger, branch: str, messenger: Messenger) -> None:
        self._ledger = ledger
        self._branch = branch
        self._messenger = messenger
        self._untold: dict[str, set[int]] = {}  # of the requests whose documents have been read
        self._attempts: Counter[int] = Counter()
        self._parts = NO_PARTS

    def note(
        self,
        plan: RoundPlan,
        requests: Iterable[RequestProgress],
        tallies: Mapping[int, Tally | Withheld],
        before: ModelState,
        metrics_before: Mapping[str, float],
        metrics: Mapping[str, float],
        *,
        parts: Parts = NO_PARTS,
    ) -> None:
        """Note what a round has shown of the requests that it begins to unlearn, and of those that end with it.

        Parameters
        ----------
        plan
        requests
            As they will be once the round is saved.
        tallies
            Which the clients to forget sent with their updates.
        before
            The weights that the unlearning started from.
        metrics_before, metrics
            Of the global model before and after the round.
        parts
            The parts of clients' data that requests may name.
        """
        known = tuple(requests)
        tried = [r for r in known if r.unlearned_round is not None or r.outcome == "refused"]
        begun = [r for r in tried if plan.round in (r.unlearned_round, r.ended_round)]
        begun = [r for r in known if r.id in plan.requests and plan.step == 0 and (r.under_way or r in begun)]
        ended = [r for r in tried if r.ended_round == plan.round and r.outcome != "refused"]
        if not begun and not ended:
            return
        numbers = {k for r in begun for k in r.clients}
        told = self._not_asked(plan, numbers - tallies.keys(), known, parts)
        told |= {k: tallies[k] for k in numbers & tallies.keys()}
        measures = self._messenger.measures(told, before) if told else {}
        with self._ledger.batch():
            for r in begun:
                own = {k: measures[k] for k in r.clients}
                document = stage(plan.round - 1, own, metrics_before)
                self._ledger.note_measures(self._branch, r.id, "before", document)
            for r in ended:
                whole = _whole(known, parts)
                why = {
                    k: NOT_ASKED if _with_its_client(k, whole, parts) else NOT_ASKED_AGAIN for k in r.clients
                }
                own = self._messenger.measures(why, before)
                self._ledger.note_measures(self._branch, r.id, "ended", stage(plan.round, own, metrics))

    def _not_asked(
        self, plan: RoundPlan, numbers: set[int], requests: Iterable[RequestProgress], parts: Parts
    ) -> dict[int, Tally | Withheld]:
        """Return why there is nothing from before a step of those that sent no tally with it."""
        earlier = (r for r in requests if r.unlearned_round is not None and r.unlearned_round < plan.round)
        forgotten = {k for r in earlier for k in r.clients}
        # Plans are read for those only that the step left aside: seldom anybody.
        plans = self._ledger.plans(self._branch) if numbers.difference(plan.forget) else []
        found = fates(
            {k: parts.owner(k) for k in numbers},
            set(plan.forget),
            (p for p in plans if p.round < plan.round),
            lambda k: k in forgotten or parts.owner(k) in forgotten,
        )
        by_stored = Withheld("forgotten with a stored update, as its node was unreachable")
        return {k: by_stored if k in plan.stored else BEFORE_STEP[fate] for k, fate in found.items()}

    def tell(
        self,
        round: int,
        requests: Iterable[RequestProgress],
        state: ModelState,
        metrics: Mapping[str, float],
        grid: Grid,
        nodes: Mapping[int, int],
        *,
        parts: Parts = NO_PARTS,
    ) -> None:
        """Tell the nodes of all clients that have been forgotten and do not know yet, as far as they can be reached.

        Their answers are waited for once, because they measure these weights. Who did not answer, was gone, or was
        told by an earlier server is reminded in passing: Flower keeps what a node remembers for one run only, and
        every server has a run of its own.

        Parameters
        ----------
        round
            The last one that is saved.
        requests
        state
            The weights after it.
        metrics
            Of these weights; empty where they are not known any more.
        nodes
            Client number → node id, of those that can be reached.
        parts
            The parts of clients' data that requests may name. Whose they are is not told: it has taken part in their
            forgetting, and goes on with the rest. It is asked once what the weights still know of them.
        """
        applied = {r.id: r for r in requests if r.unlearned_round is not None}
        self._parts = parts
        new = [r for r in applied.values() if r.id not in self._untold and not self._recall(r)]
        self._messenger.collect(grid)
        whole = _whole(applied.values(), parts) if new else frozenset[int]()
        asked = self._tell_now(round, new, whole, state, metrics, grid, nodes) if new else set[int]()
        self._remind(applied.values(), asked, grid, nodes)
        reached = {
            id_: known for id_, untold in self._untold.items() if (known := untold & self._messenger.told)
        }
        if reached:
            with self._ledger.batch():
                for id_, clients in reached.items():
                    self._amend(id_, clients)

    def _tell_now(
        self,
        round: int,
        new: Sequence[RequestProgress],
        whole: frozenset[int],
        state: ModelState,
        metrics: Mapping[str, float],
        grid: Grid,
        nodes: Mapping[int, int],
    ) -> set[int]:
        """Tell the clients of requests that nobody has been told of, note what they measured, and return them.

        Of a part of the data of a client that has been forgotten as a whole nobody is asked: its node refuses.
        """
        numbers = {k for r in new for k in r.clients}
        asked = set(self._parts.clients(numbers))
        self._attempts.update(asked & nodes.keys())
        data = self._data_of(new)
        found: dict[int, Measures] = self._messenger.forgotten(
            grid, nodes, sorted(asked), state, assignments=data
        )
        not_asked = {k: NOT_ASKED for k in numbers if _with_its_client(k, whole, self._parts)}
        found |= self._messenger.measures(not_asked, state)
        of_parts = {k: data[k] for k in numbers - asked - not_asked.keys()}
        found |= self._messenger.of_parts(grid, nodes, of_parts, state) if of_parts else {}
        told = self._messenger.told
        with self._ledger.batch():
            for r in new:
                self._untold[r.id] = set(self._parts.clients(r.clients)) - told
                own = {k: found[k] for k in r.clients}
                document = stage(round, own, metrics, told.intersection(r.clients))
                self._ledger.note_measures(self._branch, r.id, "unlearned", document)
        return asked

    def _data_of(self, requests: Iterable[RequestProgress]) -> dict[int, Assignment]:
        """Return what was forgotten of those clients and parts of which it was not simply all: as it was planned."""
        found: dict[int, Assignment] = {}
        for r in requests if self._parts else ():
            record = self._ledger.plan(self._branch, r.unlearned_round or 0)
            without = {} if record is None else RoundPlan.from_dict(record.plan).without
            found |= self._parts.assignments(r.clients, without)
        return found

    def _remind(
        self, applied: Iterable[RequestProgress], asked: set[int], grid: Grid, nodes: Mapping[int, int]
    ) -> None:
        """Remind whoever has not confirmed to this server; in a simulation, whoever has confirmed to none."""
        if hasattr(grid, "client_nodes"):
            ignorant = {k for untold in self._untold.values() for k in untold}
        else:
            everybody = {k for r in applied for k in r.clients}
            ignorant = set(self._parts.clients(everybody)) - self._messenger.told
        ignorant -= self._messenger.reminding | asked
        due = sorted(k for k in ignorant & nodes.keys() if self._attempts[k] < ATTEMPTS)
        self._attempts.update(due)
        self._messenger.remind(grid, {k: nodes[k] for k in due})

    def _recall(self, request: RequestProgress) -> bool:
        """Take over what the ledger says of a request whose nodes an earlier server told; False: none did."""
        document = self._ledger.measures(self._branch, request.id).get("unlearned")
        if document is None:
            return False
        self._untold[request.id] = set(self._parts.clients(request.clients)).difference(document["told"])
        return True

    def _amend(self, id_: str, reached: set[int]) -> None:
        """Note that nodes know by now; what they measured belongs to later weights, and is left out."""
        document = self._ledger.measures(self._branch, id_)["unlearned"]
        told = sorted({*document["told"], *reached})
        self._ledger.note_measures(self._branch, id_, "unlearned", {**document, "told": told})
        self._untold[id_] -= reached


def _whole(requests: Iterable[RequestProgress], parts: Parts) -> frozenset[int]:
    """Return the clients that have been forgotten as a whole."""
    return parts.clients(k for r in requests if r.unlearned_round is not None for k in r.clients)


def _with_its_client(number: int, whole: frozenset[int], parts: Parts) -> bool:
    """Whether it is a part of the data of one of these clients."""
    return number in parts and parts.owner(number) in whole
