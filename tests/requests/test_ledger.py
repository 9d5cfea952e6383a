"""What one caller sees of the ledger: requests, plans, failures, batches, copies."""

import json
import sqlite3
import threading
from pathlib import Path

import pytest

from fedunlearn.requests import Ledger, LedgerError, Move, RequestConflictError


@pytest.fixture(params=["memory", "file"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path):
    place = ":memory:" if request.param == "memory" else tmp_path / "requests.sqlite"
    with Ledger(place, clock=lambda: 7.0) as opened:
        yield opened


def test_a_request_from_submission_to_forgotten(ledger: Ledger) -> None:
    ledger.submit("s1/puf", request_id="r1", clients=[7, 3], at_round=5)
    ledger.commit_plan("s1/puf", 6, {"requests": ["r1"], "clients": [0, 3, 7]})
    ledger.transition_many("s1/puf", [Move("r1", "unlearning", 6), Move("r1", "recovering", 6)])
    ledger.transition("s1/puf", "r1", "forgotten", round=9, detail="within epsilon")
    record = ledger.request("s1/puf", "r1")
    assert (record.clients, record.at_round, record.state) == ((3, 7), 5, "forgotten")
    assert (record.unlearned_round, record.ended_round) == (6, 9)
    assert [(e.seq, e.from_state, e.to_state, e.round, e.at, e.detail) for e in ledger.audit("s1/puf")] == [
        (1, None, "received", 5, 7.0, "experiment"),
        (2, "received", "scheduled", 6, 7.0, ""),
        (3, "scheduled", "unlearning", 6, 7.0, ""),
        (4, "unlearning", "recovering", 6, 7.0, ""),
        (5, "recovering", "forgotten", 9, 7.0, "within epsilon"),
    ]


def test_submitting_again_is_no_second_request(ledger: Ledger) -> None:
    ledger.submit("b", request_id="r", clients=[1, 2], at_round=3)
    ledger.submit("b", request_id="r", clients=[2, 1, 2], at_round=3, source="http")
    assert len(ledger.requests("b")) == len(ledger.audit()) == 1


@pytest.mark.parametrize("other", [{"clients": [1]}, {"at_round": 4}, {"at_round": None}])
def test_an_id_cannot_be_used_for_something_else(ledger: Ledger, other: dict[str, object]) -> None:
    ledger.submit("b", request_id="r", clients=[1, 2], at_round=3)
    with pytest.raises(RequestConflictError, match="another id") as caught:
        ledger.submit("b", **{"request_id": "r", "clients": [1, 2], "at_round": 3, **other})  # type: ignore[arg-type]
    assert isinstance(caught.value, ValueError)
    ledger.submit("another branch", **{"request_id": "r", "clients": [1, 2], "at_round": 3, **other})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        {"clients": []},
        {"clients": [-1]},
        {"clients": [True]},
        {"clients": ["3"]},
        {"request_id": ""},
        {"at_round": -1},
        {"at_round": 2.0},
    ],
)
def test_a_request_must_name_clients(ledger: Ledger, wrong: dict[str, object]) -> None:
    with pytest.raises(LedgerError, match=r"^request "):
        ledger.submit("b", **{"request_id": "r", "clients": [1], **wrong})  # type: ignore[arg-type]
    assert ledger.requests("b") == []


def test_requests_are_ordered_by_round_then_id_and_live_ones_by_arrival(ledger: Ledger) -> None:
    for name, at_round in [("live-z", None), ("b", 9), ("a", 9), ("live-a", None), ("c", 2)]:
        ledger.submit("b", request_id=name, clients=[0], at_round=at_round)
    assert [r.id for r in ledger.requests("b")] == ["c", "a", "b", "live-z", "live-a"]
    ledger.transition("b", "a", "withdrawn", round=0)
    assert [r.id for r in ledger.requests("b", ["withdrawn"])] == ["a"]
    assert ledger.requests("b", []) == []
    with pytest.raises(LedgerError, match="unknown state 'done'"):
        ledger.requests("b", ["done"])


def test_due_are_open_requests_that_arrived_before_the_round(ledger: Ledger) -> None:
    for name, at_round in [("early", 3), ("late", 4), ("live", None), ("gone", 1), ("held", 1)]:
        ledger.submit("b", request_id=name, clients=[0], at_round=at_round)
    ledger.transition("b", "gone", "withdrawn", round=1)
    ledger.transition("b", "held", "waiting", round=2)
    assert [r.id for r in ledger.due("b", 4)] == ["held", "early", "live"]
    assert ledger.due("other", 4) == []


def test_a_plan_is_final_and_may_be_committed_again(ledger: Ledger) -> None:
    ledger.submit("b", request_id="r", clients=[1], at_round=1)
    plan = {"requests": ("r",), "scale": 0.1, "clients": {"1": [1, 2]}, "mode": None}
    ledger.commit_plan("b", 2, plan)
    trail = ledger.audit()
    ledger.commit_plan("b", 2, {"mode": None, "clients": {"1": [1, 2]}, "scale": 0.1, "requests": ["r"]})
    assert ledger.audit() == trail
    with pytest.raises(LedgerError, match="already has a different plan"):
        ledger.commit_plan("b", 2, plan | {"scale": 0.2})
    stored = ledger.plan("b", 2)
    assert stored is not None and stored.plan == plan | {"requests": ["r"]}
    assert ledger.plan("b", 3) is None and ledger.plan("other", 2) is None


@pytest.mark.parametrize("requests", [["r", "unknown"], ["r", "withdrawn"]])
def test_a_plan_with_a_request_that_cannot_be_scheduled_leaves_nothing(
    ledger: Ledger, requests: list[str]
) -> None:
    ledger.submit("b", request_id="r", clients=[1])
    ledger.submit("b", request_id="withdrawn", clients=[2])
    ledger.transition("b", "withdrawn", "withdrawn", round=0)
    with pytest.raises(LedgerError):
        ledger.commit_plan("b", 1, {"requests": requests})
    assert ledger.plan("b", 1) is None
    assert ledger.request("b", "r").state == "received"


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ({}, "the plan of round 1 lacks 'requests'"),
        ({"requests": [], "clients": {3: "train"}}, "plan.clients has the key 3"),
        ({"requests": [], "scale": float("nan")}, r"plan.scale = nan: must be finite"),
        ({"requests": [], "w": [0, {1, 2}]}, r"plan.w\[1\] is a set"),
    ],
)
def test_a_plan_that_json_would_change_is_refused(ledger: Ledger, plan: dict[str, object], says: str) -> None:
    with pytest.raises(LedgerError, match=says):
        ledger.commit_plan("b", 1, plan)
    assert ledger.plans("b") == []


def test_failures_are_recorded_once(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="has no plan"):
        ledger.record_failures("b", 1, {})
    ledger.commit_plan("b", 1, {"requests": []})
    ledger.commit_plan("b", 2, {"requests": []})
    ledger.record_failures("b", 1, {10: "lost", 2: "NaN"})
    ledger.record_failures("b", 1, {2: "NaN", 10: "lost"})
    with pytest.raises(LedgerError, match="final"):
        ledger.record_failures("b", 1, {2: "NaN"})
    ledger.record_failures("b", 2, {})
    with pytest.raises(LedgerError, match="final"):
        ledger.record_failures("b", 2, {1: "lost"})
    assert [(p.round, list(p.failed.items()), p.answered) for p in ledger.plans("b")] == [
        (1, [(2, "NaN"), (10, "lost")], True),
        (2, [], True),
    ]


def test_failures_of_a_round_executed_again_may_be_amended(ledger: Ledger) -> None:
    ledger.commit_plan("b", 1, {"requests": []})
    for failed in ({1: "lost"}, {2: "NaN"}, {}):
        ledger.record_failures("b", 1, failed, amend=True)
        assert [(p.failed, p.answered) for p in ledger.plans("b")] == [(failed, True)]
    with pytest.raises(LedgerError, match="has no plan"):
        ledger.record_failures("b", 2, {}, amend=True)


def test_a_set_held_by_a_failed_client_is_planned_again(ledger: Ledger) -> None:
    ledger.submit("b", request_id="r", clients=[1], at_round=1)
    for round in (2, 3):
        ledger.commit_plan("b", round, {"requests": ["r"]})
        ledger.transition("b", "r", "unlearning", round=round)
        if round == 2:
            ledger.transition("b", "r", "waiting", round=2, detail="client 1 failed")
            assert [r.id for r in ledger.due("b", 3)] == ["r"]
            assert ledger.request("b", "r").unlearned_round is None
    ledger.transition("b", "r", "recovering", round=3)
    assert ledger.request("b", "r").unlearned_round == 3


def test_a_round_executed_again_makes_its_transitions_again(ledger: Ledger) -> None:
    ledger.submit("b", request_id="r", clients=[1], at_round=1)
    ledger.commit_plan("b", 2, {"requests": ["r"]})
    steps = [Move("r", "unlearning", 2), Move("r", "recovering", 2), Move("r", "forgotten", 2)]
    ledger.transition_many("b", steps)
    trail = ledger.audit()
    ledger.commit_plan("b", 2, {"requests": ["r"]})
    ledger.transition_many("b", steps)
    assert ledger.audit() == trail
    with pytest.raises(LedgerError, match="from 'forgotten' to 'recovering'"):
        ledger.transition("b", "r", "recovering", round=3)


def test_a_batch_is_one_transaction(ledger: Ledger) -> None:
    with pytest.raises(RuntimeError), ledger.batch():
        ledger.submit("b", request_id="r", clients=[1])
        ledger.commit_plan("b", 1, {"requests": ["r"]})
        raise RuntimeError
    assert (ledger.requests("b"), ledger.plans("b"), ledger.audit()) == ([], [], [])


def test_a_refused_call_within_a_batch_undoes_only_itself(ledger: Ledger) -> None:
    with ledger.batch():
        ledger.submit("b", request_id="r", clients=[1])
        with pytest.raises(LedgerError):
            ledger.transition_many("b", [Move("r", "scheduled", 1), Move("r", "forgotten", 1)])
    assert ledger.request("b", "r").state == "received"
    assert len(ledger.audit()) == 1


def test_a_branch_is_copied_with_its_whole_history(ledger: Ledger) -> None:
    ledger.submit("cached", request_id="r", clients=[1], at_round=1)
    ledger.commit_plan("cached", 2, {"requests": ["r"], "scale": 1 / 3})
    ledger.record_failures("cached", 2, {4: "lost"})
    ledger.submit("run", request_id="old", clients=[9])
    ledger.submit("other", request_id="kept", clients=[9])
    exported = json.loads(json.dumps(ledger.export("cached")))
    ledger.load("run", exported)
    assert ledger.export("run") == exported == ledger.export("cached")
    assert ledger.requests("run") == ledger.requests("cached")
    assert ledger.plans("run") == ledger.plans("cached")
    assert [r.id for r in ledger.requests("other")] == ["kept"]
    assert ledger.branches() == ["cached", "other", "run"]


@pytest.mark.parametrize("damage", ["schema", "requests", "audit"])
def test_a_damaged_copy_replaces_nothing(ledger: Ledger, damage: str) -> None:
    ledger.submit("b", request_id="r", clients=[1], at_round=1)
    exported = ledger.export("b")
    del exported[damage]
    with pytest.raises(LedgerError, match="exported branch"):
        ledger.load("b", exported)
    assert [r.id for r in ledger.requests("b")] == ["r"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("requests", 0, "state"), "forgotten"),
        (("requests", 0, "clients"), [2]),
        (("audit", 0, "clients"), [2]),
        (("audit", 1, "from_state"), "unlearning"),
        (("audit", 1, "round"), 9),
        (("audit", 1, "request_id"), "another"),
    ],
)
def test_a_copy_whose_parts_contradict_each_other_replaces_nothing(
    ledger: Ledger, place: tuple[str, int, str], value: object
) -> None:
    ledger.submit("b", request_id="r", clients=[1], at_round=1)
    ledger.transition("b", "r", "waiting", round=2)
    exported = ledger.export("b")
    exported[place[0]][place[1]][place[2]] = value
    before = ledger.export("b"), ledger.head("b")
    with pytest.raises(LedgerError, match="exported branch is damaged: "):
        ledger.load("b", exported)
    assert (ledger.export("b"), ledger.head("b")) == before


def test_the_same_history_under_the_same_name_has_the_same_head(ledger: Ledger) -> None:
    ledger.submit("b", request_id="r", clients=[1], at_round=1)
    ledger.transition("b", "r", "waiting", round=2)
    with Ledger(":memory:") as replay:
        replay.load("b", ledger.export("b"))
        assert replay.head("b") == ledger.head("b") and replay.check_trail("b") == []
        replay.load("c", ledger.export("b"))
        assert replay.head("c") != ledger.head("b") and replay.check_trail("c") == []


def test_threads_may_share_a_ledger(ledger: Ledger) -> None:
    def submit(first: int) -> None:
        for k in range(first, first + 25):
            ledger.submit("b", request_id=f"r{k}", clients=[k])

    threads = [threading.Thread(target=submit, args=(25 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(r.arrival for r in ledger.requests("b")) == list(range(1, 101))


def test_files_that_are_no_ledger_are_refused_by_name(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("forget client 3, please\n" * 100)
    with pytest.raises(LedgerError, match=r"notes.txt: cannot be read as a ledger"):
        Ledger(text)
    with pytest.raises(LedgerError, match=r"does its folder exist"):
        Ledger(tmp_path / "absent" / "requests.sqlite")
    newer = tmp_path / "newer.sqlite"
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 5")
    with pytest.raises(LedgerError, match="ledger version 5; this fedunlearn reads version 4"):
        Ledger(newer)


def test_a_closed_ledger_says_so(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "requests.sqlite")
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        ledger.requests("b")
