"""The ledger against a model made of dicts: any sequence of calls, with reopening in between."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fedunlearn.requests import (
    ENDS,
    STATES,
    TRANSITIONS,
    FencedError,
    Intake,
    Ledger,
    LedgerError,
    NotAllowedError,
    NotWithdrawableError,
    RequestConflictError,
)
from tests.profiles import some

BRANCHES = st.sampled_from(["a", "b"])
IDS = st.sampled_from(["r1", "r2", "r3"])
ROUNDS = st.integers(0, 4)
CLIENTS = st.sets(st.integers(0, 4), min_size=1, max_size=2)
ACTORS = st.sampled_from(["operator:x", "operator:y", "client:1"])


class LedgerModel(RuleBasedStateMachine):
    """Each rule makes one call on the ledger and on the model, and demands the same refusal from both."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.ledger = Ledger(self.folder / "requests.sqlite")
        self.requests: dict[tuple[str, str], dict[str, Any]] = {}
        self.plans: dict[tuple[str, int], list[Any]] = {}
        self.trail: list[tuple[Any, ...]] = []
        self.keys: dict[tuple[str, str, str], str] = {}
        self.asked_by: dict[tuple[str, str], str] = {}
        self.heads: list[tuple[str, Any]] = []
        self.tokens = {"a": 0, "b": 0}

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            shutil.rmtree(self.folder)

    def legal(self, branch: str, name: str, to: str, round: int) -> bool | None:
        """Whether the model allows a step; None when it has been made already."""
        if (branch, name) not in self.requests:
            return False
        if any(entry[:2] == (branch, name) and entry[3:] == (to, round) for entry in self.trail):
            return None
        return to in TRANSITIONS[self.requests[branch, name]["state"]]

    def enter(self, branch: str, name: str, to: str, round: int) -> None:
        request = self.requests[branch, name]
        self.trail.append((branch, name, request["state"], to, round))
        if to == "recovering":
            request["unlearned"] = request["round"]
        request.update(state=to, round=round, ended=round if to in ENDS else None)

    @rule(branch=BRANCHES, name=IDS, clients=CLIENTS, at_round=st.none() | ROUNDS)
    def submit(self, branch: str, name: str, clients: set[int], at_round: int | None) -> None:
        asked = {"clients": tuple(sorted(clients)), "at_round": at_round}
        known = self.requests.get((branch, name))
        try:
            self.ledger.submit(branch, request_id=name, clients=clients, at_round=at_round)
            assert known is None or asked.items() <= known.items()
        except RequestConflictError:
            assert known is not None and not asked.items() <= known.items()
        if known is None:
            fresh = {"state": "received", "round": None, "unlearned": None, "ended": None}
            self.requests[branch, name] = {**asked, **fresh, "arrival": self.arrival(branch)}
            self.trail.append((branch, name, None, "received", at_round))

    def arrival(self, branch: str) -> int:
        return 1 + sum(1 for other, _ in self.requests if other == branch)

    def planned(self, branch: str) -> int:
        return max((round for other, round in self.plans if other == branch), default=0)

    @rule(branch=BRANCHES, clients=CLIENTS, actor=ACTORS, key=st.none() | st.sampled_from(["k", "l"]))
    def ask(self, branch: str, clients: set[int], actor: str, key: str | None) -> None:
        wanted = tuple(sorted(clients))
        allowed = actor.startswith("operator") or wanted == (1,)
        known = None if key is None else self.keys.get((branch, actor, key))
        fits = known is None or self.requests[branch, known]["clients"] == wanted
        intake = Intake(self.ledger, branch, num_clients=5)
        try:
            receipt = intake.ask(clients, source="http", actor=actor, idempotency_key=key)
        except (NotAllowedError, RequestConflictError) as error:
            assert (not allowed) if isinstance(error, NotAllowedError) else (allowed and not fits)
            return
        assert allowed and fits and receipt.repeated == (known is not None) and receipt.clients == wanted
        if known is not None:
            assert receipt.request_id == known
            return
        name = receipt.request_id
        here = sorted(
            ((r["arrival"], n, r) for (b, n), r in self.requests.items() if b == branch), key=lambda x: x[0]
        )
        forgotten = {c for _, _, r in here if r["unlearned"] is not None for c in r["clients"]}
        covering = [n for _, n, r in here if r["state"] not in ENDS and clients <= set(r["clients"])]
        asked = {"clients": wanted, "at_round": None, "arrival": self.arrival(branch)}
        fresh = {"state": "received", "round": None, "unlearned": None, "ended": None}
        self.requests[branch, name] = asked | fresh
        self.asked_by[branch, name] = actor
        self.trail.append((branch, name, None, "received", None))
        if clients <= forgotten:
            assert receipt.same_as is None
            self.enter(branch, name, "duplicate", self.planned(branch))
        else:
            assert receipt.same_as == (covering[0] if covering else None)
        assert receipt.state == self.requests[branch, name]["state"]
        if key is not None:
            self.keys[branch, actor, key] = name
        self.heads.append((branch, receipt.head))

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), actor=ACTORS)
    def withdraw(self, data: st.DataObject, actor: str) -> None:
        branch, name = data.draw(st.sampled_from(list(self.requests)))
        request = self.requests[branch, name]
        allowed = actor.startswith("operator") or self.asked_by.get((branch, name)) == actor
        try:
            Intake(self.ledger, branch, num_clients=5).withdraw(name, actor=actor)
        except NotAllowedError:
            assert not allowed
        except NotWithdrawableError as error:
            assert allowed and error.state == request["state"] not in ("received", "waiting")
        else:
            assert allowed
            self.enter(branch, name, "withdrawn", self.planned(branch))

    @rule(branch=BRANCHES)
    def keep_a_head(self, branch: str) -> None:
        self.heads.append((branch, self.ledger.head(branch)))

    @rule(branch=BRANCHES, holder=st.sampled_from(["x", "y"]))
    def another_takes_over_and_this_one_stops(self, branch: str, holder: str) -> None:
        before = self.ledger
        before.take_lease(branch, holder, seconds=1000.0)
        self.ledger = Ledger(self.folder / "requests.sqlite", clock=lambda: time.time() + 1e6)
        self.tokens[branch] += 2
        lease = self.ledger.take_lease(branch, "z")
        assert lease.token == self.tokens[branch]
        try:
            before.submit(branch, request_id="stale", clients=[0])
            raise AssertionError("a stale server wrote")
        except FencedError:
            before.close()
        lease.release()
        self.reopen()

    @rule(branch=BRANCHES, name=IDS, to=st.sampled_from(STATES), round=ROUNDS)
    def transition(self, branch: str, name: str, to: str, round: int) -> None:
        self.transition_as_modelled(branch, name, to, round)

    @precondition(lambda self: any(TRANSITIONS[r["state"]] for r in self.requests.values()))
    @rule(data=st.data(), round=ROUNDS)
    def transition_that_is_legal(self, data: st.DataObject, round: int) -> None:
        # In the order in which they came: ids are random, and a replay would draw from another order.
        alive = [key for key, r in self.requests.items() if TRANSITIONS[r["state"]]]
        branch, name = data.draw(st.sampled_from(alive))
        to = data.draw(st.sampled_from(sorted(TRANSITIONS[self.requests[branch, name]["state"]])))
        self.transition_as_modelled(branch, name, to, round)

    def transition_as_modelled(self, branch: str, name: str, to: str, round: int) -> None:
        legal = self.legal(branch, name, to, round)
        try:
            self.ledger.transition(branch, name, to, round=round)
            assert legal is not False
        except LedgerError:
            assert legal is False
        if legal:
            self.enter(branch, name, to, round)

    @rule(branch=BRANCHES, round=ROUNDS, names=st.lists(IDS, unique=True), scale=st.integers(1, 2))
    def commit_plan(self, branch: str, round: int, names: list[str], scale: int) -> None:
        plan = {"requests": names, "scale": scale}
        known = self.plans.get((branch, round))
        if known is not None:
            accepted = known[0] == plan
        else:
            accepted = all(self.legal(branch, name, "scheduled", round) is not False for name in names)
        try:
            self.ledger.commit_plan(branch, round, plan)
            assert accepted
        except LedgerError:
            assert not accepted
        if accepted and known is None:
            self.plans[branch, round] = [plan, None]
            for name in names:
                if self.legal(branch, name, "scheduled", round):
                    self.enter(branch, name, "scheduled", round)

    @rule(branch=BRANCHES, round=ROUNDS, failed=st.dictionaries(st.integers(0, 11), st.just("lost")))
    def record_failures(self, branch: str, round: int, failed: dict[int, str]) -> None:
        known = self.plans.get((branch, round))
        accepted = known is not None and known[1] in (None, failed)
        try:
            self.ledger.record_failures(branch, round, failed)
            assert accepted
        except LedgerError:
            assert not accepted
        if accepted and known is not None:
            known[1] = failed

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.folder / "requests.sqlite")

    @rule()
    def copy_b_over_a(self) -> None:
        self.ledger.load("a", self.ledger.export("b"))
        for table in (self.requests, self.plans):
            for key in [key for key in table if key[0] == "a"]:
                del table[key]
            table.update({("a", key[1]): _copy(value) for key, value in list(table.items())})
        asked = {name: who for (branch, name), who in self.asked_by.items() if branch == "b"}
        self.asked_by = {(branch, name): who for branch in ("a", "b") for name, who in asked.items()}
        self.keys = {key: name for key, name in self.keys.items() if key[0] == "b"}
        self.heads = [kept for kept in self.heads if kept[0] == "b"]
        self.trail = [e for e in self.trail if e[0] == "b"]
        self.trail += [("a", *e[1:]) for e in self.trail]

    @invariant()
    def both_hold_the_same(self) -> None:
        for branch in ("a", "b"):
            held = {
                record.id: {
                    "clients": record.clients,
                    "at_round": record.at_round,
                    "state": record.state,
                    "round": record.state_round,
                    "unlearned": record.unlearned_round,
                    "ended": record.ended_round,
                    "arrival": record.arrival,
                }
                for record in self.ledger.requests(branch)
            }
            assert held == {name: request for (b, name), request in self.requests.items() if b == branch}
            plans = {p.round: [p.plan, p.failed if p.answered else None] for p in self.ledger.plans(branch)}
            assert plans == {round: plan for (b, round), plan in self.plans.items() if b == branch}
            trail = [
                (e.branch, e.request_id, e.from_state, e.to_state, e.round) for e in self.ledger.audit(branch)
            ]
            assert trail == [entry for entry in self.trail if entry[0] == branch]
            assert self.ledger.check_trail(branch) == []
        for branch, head in self.heads[-3:]:
            assert self.ledger.check_trail(branch, head=head) == []
        seqs = [entry.seq for entry in self.ledger.audit()]
        assert seqs == sorted(set(seqs))


def _copy(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else list(value)


TestLedgerModel = LedgerModel.TestCase
TestLedgerModel.settings = settings(some, stateful_step_count=25)
