"""Who was forgotten by a step and who goes on training: what certificates say of it, in whatever order requests come.

A live federation's own docket decides about whole clients, parts of their data, and both at once; each sentence is
then held against its plans, its requests, and against whom it would have train next.
"""

import html
import json
import random
import re
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from fedunlearn.certificates import certificate
from fedunlearn.certificates.facts import no_weights
from fedunlearn.certificates.page import page
from fedunlearn.certificates.relations import Relations
from fedunlearn.config import RequestsConfig
from fedunlearn.live.request_queue import LiveDocket
from fedunlearn.requests import LIVE_BRANCH, Intake, Ledger, RequestRecord
from fedunlearn.server.plan import RoundPlan
from fedunlearn.wording import named
from tests.certificates.live_run import experiment

NUM_CLIENTS, NEVER, AWAY = 6, 4, 0
"""The client that never trains, and the one that cannot be reached when it is to be forgotten alone."""

OPS: dict[str, dict[str, Any]] = {
    "whole": {"clients": [1]},
    "two": {"clients": [1, 2]},
    "never": {"clients": [3, NEVER]},
    "away": {"clients": [AWAY]},
    "class": {"clients": None, "classes": [3]},
    "class of one": {"clients": [1], "classes": [3]},
    "samples": {"clients": [1], "samples": [0, 1]},
    "share of two": {"clients": [1, NEVER], "samples": 0.5},
}


class Federation:
    """The docket of a live federation, whose clients do as they are asked."""

    def __init__(self) -> None:
        self.ledger = Ledger(":memory:")
        self.ledger.take_lease(LIVE_BRANCH, "test", seconds=1e9)
        self.intake = Intake(self.ledger, LIVE_BRANCH, num_clients=NUM_CLIENTS)
        self.absent: frozenset[int] = frozenset()
        self.docket = LiveDocket(
            self.ledger,
            LIVE_BRANCH,
            forgets=True,
            max_attempts=3,
            rules=RequestsConfig(window=0.0, during_recovery="join", offline="exclude"),
            num_clients=NUM_CLIENTS,
            absent=lambda: self.absent,
        )
        self.round = 0
        self.checked: set[tuple[str, int]] = set()

    def ask(self, op: str) -> None:
        if op == "away":
            self.absent = frozenset({AWAY})
        self.intake.ask(**OPS[op], source="cli", actor="operator:x")

    def decide(self, to_forget: tuple[int, ...], gone: frozenset[int], step: int) -> RoundPlan:
        out = gone | self.absent | {NEVER}
        train = () if to_forget else tuple(k for k in range(NUM_CLIENTS) if k not in out)
        without = self.docket.parts.without(train, to_forget, gone, self.docket.settled)
        return RoundPlan(self.round, train, to_forget, without=without)

    def execute(self, outcome: Any = "recovered", *, refused: str = "") -> None:
        """Execute a round; requests that it applies end with it, or with the next; or the guard rolls it back."""
        self.round += 1
        docket = self.docket
        plan, _ = docket.plan(self.round, self.decide)
        docket.begin(plan)
        docket.apply(plan, {}, reference=90.0, delivered=plan.forget, refused=refused)
        if outcome is not None:
            docket.requests = tuple(
                replace(r, outcome=outcome, ended_round=self.round) if r.recovering else r
                for r in docket.requests
            )
        docket.reconcile(self.round)
        self.absent = frozenset()

    def certificates(self) -> list[tuple[RequestRecord, dict[str, Any]]]:
        """The certificates that would be written now, of all requests that have ended."""
        trail, records = self.ledger.audit(LIVE_BRANCH), self.ledger.requests(LIVE_BRANCH)
        head = self.ledger.head(LIVE_BRANCH)
        if head is None:
            return []
        return [
            (
                record,
                certificate.compose(
                    certificate.Evidence(
                        run="run",
                        experiment=experiment(),
                        branch=LIVE_BRANCH,
                        record=record,
                        entries=[e for e in trail if e.request_id == record.id],
                        relations=Relations(records, trail),
                        plans=self.ledger.plans(LIVE_BRANCH),
                        weights={name: no_weights(name) for name in ("before", "after", "end")},
                        measures={},
                        kept=(),
                        retention=RETENTION,
                        head=head,
                        round=self.round,
                        issued_at=0.0,
                    ),
                    key=None,
                ),
            )
            for record in records
            if record.ended
        ]

    def check(self) -> int:
        """Hold all certificates that would be written now against what is known, and return how many there are."""
        found = self.certificates()
        for record, document in found:
            self.check_step(record, document)
            if record.parts and "no longer trained on" in " ".join(document["outcome"]["meaning"]):
                self.check_who_goes_on(record, document)
        return len(found)

    def check_step(self, record: RequestRecord, document: dict[str, Any]) -> None:
        if record.unlearned_round is None:
            return
        text, shown = document["outcome"]["meaning"][0], in_words(document)
        plans = {p.round: p.plan for p in self.ledger.plans(LIVE_BRANCH)}
        forget = plans[record.unlearned_round]["forget"]
        owner = {k: k for k in record.clients} | {p.number: p.client for p in record.parts}
        removed, already, with_client, never = [], [], [], []
        for number in record.clients:
            earlier = [
                r
                for r in self.ledger.requests(LIVE_BRANCH)
                if r.unlearned_round is not None
                and r.unlearned_round < record.unlearned_round
                and {number, owner[number]} & set(r.clients)
            ]
            trained = [
                p
                for t, p in plans.items()
                if t < record.unlearned_round
                and owner[number] in p["train"]
                and number not in p.get("without", {}).get(str(owner[number]), [])
            ]
            if number in forget:
                removed.append(number)
            elif not trained:
                never.append(number)
            elif earlier:
                already.append(number)
            else:
                assert owner[number] in forget, "by what else?"
                removed.append(number)
                with_client.append(number)

        def called(numbers: list[int]) -> str:
            return named(numbers, record.parts) if numbers else ""

        def stated(pattern: str, text: str) -> str:
            match = re.search(pattern, text)
            return (match.group(1)[0].lower() + match.group(1)[1:]) if match else ""

        assert stated(r"had learned from (.*?), by the method", text) == called(removed)
        assert ("there was nothing left to remove" in text) == (not removed)
        assert stated(r"\. ([^.]*?) had already been forgotten", text) == called(already)
        assert stated(r"\. ([^.]*?) never took part", text) == called(never)
        assert stated(r"as another request asked: ([^.]*?) had no step of", text) == called(with_client)
        assert stated(r"Already unlearned by an earlier request: ([^.]*)\.", shown) == called(already)
        assert stated(r"with all other data of their clients?: ([^.]*)\.", shown) == called(with_client)
        assert stated(r"Never took part in training, so no step was needed: ([^.]*)\.", shown) == called(
            never
        )
        others = len(set(forget) - set(record.clients))
        said = re.search(r"In the same step (\d+) (clients?), .*? (was|were) unlearned", shown)
        assert (said and said.groups()) == (
            None
            if not others
            else (str(others), *(("client", "was") if others == 1 else ("clients", "were")))
        )
        owners = document["request"]["clients"]
        assert ("The clients' own nodes" in shown) == (len(owners) > 1)
        assert ("The client's own node" in shown) == (len(owners) == 1)

    def check_who_goes_on(self, record: RequestRecord, document: dict[str, Any]) -> None:
        """The docket knows whom it would have train next; what is still open is said to be open."""
        text, shown = " ".join(document["outcome"]["meaning"]), in_words(document)
        named_by = {p.client for p in record.parts}
        if document["related"]["forgotten_by"]:  # the rest is spoken of
            named_by = {
                p.client for p in record.parts if str(p.number) not in document["related"]["forgotten_by"]
            }
        gone, forgotten = self.docket.gone(), self.docket.forgotten
        tried = {id_ for p in self.ledger.plans(LIVE_BRANCH) for id_ in p.plan["requests"]}
        excluded = [
            r
            for r in self.ledger.requests(LIVE_BRANCH)
            if r.state == "excluded" or (r.state == "refused" and r.id in tried)
        ]
        left_out = {k for r in excluded for k in r.clients} - forgotten
        expected = {
            r"; ([^;.]*?) goe?s? on with the rest of (?:their|its) data": named_by - gone,
            r"\. ([^.]*?) ha(?:ve|s) been forgotten entirely because of another": named_by & forgotten,
            r"\. ([^.]*?) ha(?:ve|s) been excluded from training entirely": named_by & gone & left_out,
            r"still open, asks to forget ([^.]*?) entirely": (named_by & gone) - left_out - forgotten,
        }
        for pattern, clients in expected.items():
            assert clients_in(pattern, text) == clients, (pattern, text)
        if record.unlearned_round is None:
            return
        nodes = shown.partition("own node")[2].partition("Not examined")[0]
        goes_on = {
            int(number)
            for part in nodes.split("; ")
            if "with the rest" in part
            for number in re.findall(r"\d+", part)
        }
        assert goes_on == named_by - gone


def clients_in(pattern: str, text: str) -> set[int]:
    match = re.search(pattern, text)
    if match is None:
        return set()
    clients = re.fullmatch(r"[Cc]lients? ([\d, and]+)", match.group(1).strip())
    assert clients is not None, match.group(1)
    return set(map(int, re.findall(r"\d+", clients.group(1))))


def in_words(document: dict[str, Any]) -> str:
    text = page(document).partition("<body>")[2]
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", text)))


RETENTION: dict[str, Any] = {
    "policy": "keep",
    "policy_in_words": "Nothing is removed.",
    "removed": [],
    "moved": [],
    "quarantine": None,
    "superlink": {"state": "none", "in_words": "None.", "messages": None, "objects": None},
    "open": [],
    "not_examined": ["logs"],
}


def play(batches: list[list[str]], late: bool) -> int:
    """Ask batch by batch, a round after each; return how many certificates were looked at."""
    federation = Federation()
    federation.execute()
    looked_at = 0
    for batch in batches:
        for op in batch:
            federation.ask(op)
        looked_at += federation.check()  # of earlier ones, with these open
        federation.execute(None if late else "recovered")
        looked_at += federation.check()
    federation.execute()
    return looked_at + federation.check()


PAIRS = [
    batches
    for one, two in permutations(OPS, 2)
    for batches in ([[one], [two]], [[one, two]], [[one], [], [two]])
]


@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True], ids=["recovered at once", "recovered late"])
def test_any_two_requests_one_after_the_other_or_at_once(late: bool) -> None:
    assert all(play(batches, late) for batches in PAIRS)


@pytest.mark.quick(seed=15)
@pytest.mark.parametrize("seed", range(40))
def test_many_requests_in_any_order(seed: int) -> None:
    draw = random.Random(seed)
    batches = [draw.choices(sorted(OPS), k=draw.randint(0, 3)) for _ in range(4)] + [["samples", "whole"]]
    assert play(batches, draw.random() < 0.5)


def test_the_orders_come_to_all_that_can_be_said() -> None:
    """Else the sentences that are looked for above might never be there."""
    said = ""
    for batches in (
        [["away"], ["whole"], ["class"], ["two"], ["share of two", "never"]],
        [["samples", "whole"], ["away", "class"]],
    ):
        federation = Federation()
        federation.execute()
        for batch in [*batches, ["never"]]:
            for op in batch:
                federation.ask(op)
            said += json.dumps([document["outcome"] for _, document in federation.certificates()])
            federation.execute()
        said += json.dumps([document["outcome"] for _, document in federation.certificates()])
    for words in (
        "go on with the rest of their data",
        "has been forgotten entirely because of another request",
        "been excluded from training entirely",
        "Another request, still open, asks to forget",
        "had no step of its own",
        "had already been forgotten because of another request",
        "never took part in training: there was nothing to remove",
    ):
        assert words in said, words


def test_a_class_of_everybody_after_one_was_forgotten() -> None:
    federation = Federation()
    federation.execute()
    for op in ("whole", "class"):
        federation.ask(op)
        federation.execute()
    (record, document) = federation.certificates()[-1]
    assert {part.client for part in record.parts} == set(range(NUM_CLIENTS))
    assert document["related"]["as_a_whole"] == {"forgotten": [1], "left_out": [], "open": []}
    assert document["outcome"]["meaning"] == [
        "In round 3 the server removed from the shared model an estimate of what it had learned from class 3 of "
        "clients 0, 2, 3 and 5, by the method described below. Class 3 of client 1 had already been forgotten "
        "because of another request; nothing is forgotten twice. Class 3 of client 4 never took part in training: "
        "there was nothing to remove.",
        "In round 3 the model's accuracy on the server's validation data was within 1 point of what it had been "
        "before: recovered. These data are no longer trained on; clients 0, 2, 3, 4 and 5 go on with the rest of "
        "their data. Client 1 has been forgotten entirely because of another request, and is no longer asked to "
        "train.",
    ]
    assert (
        "The clients' own nodes clients 0, 2, 3 and 5 took part in the forgetting of these data, and go on with the "
        "rest; client 1 was not asked about these data separately, and has been forgotten as a whole; client 4 was "
        "not asked about these data separately, and goes on with the rest"
    ) in in_words(document)


def test_whom_the_guard_would_not_forget_does_not_go_on_and_whose_request_was_not_tried_does() -> None:
    federation = Federation()
    federation.execute()
    federation.ask("whole")
    federation.execute(refused="it would do harm")
    everybody = federation.intake.ask(range(NUM_CLIENTS), source="cli", actor="operator:x").request_id
    federation.ask("class")
    federation.execute()
    assert federation.ledger.request(LIVE_BRANCH, everybody).state == "refused"
    assert federation.check() == 3
    assert federation.certificates()[-1][1]["related"]["as_a_whole"] == {
        "forgotten": [],
        "left_out": [1],
        "open": [],
    }
