"""The certificate of an unlearning of several rounds: which they were, what was before, and that it verifies."""

import json
import math

import pytest

from fedunlearn import config
from fedunlearn.certificates.facts import rounds_of_weights, step, times
from fedunlearn.certificates.unlearning_rounds import first_of, rounds_of
from fedunlearn.certificates.verification import verify
from fedunlearn.live.local import run_live
from fedunlearn.requests import LIVE_BRANCH, Intake, Ledger
from fedunlearn.requests.records import AuditEntry, PlanRecord
from fedunlearn.requests.standing import Standing
from fedunlearn.runs.checkpoints import Checkpoints, weights_hash
from tests.live.test_local import LIVE
from tests.server.three_rounds import ThreeRounds

THREE = [
    'method=[{name="tests.server.three_rounds:ThreeRounds", asks=%s}]',
    "recover.max-rounds=4",
    'retention.earlier="purge"',
]


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    monkeypatch.delenv("FEDUNLEARN_SIGNING_KEY", raising=False)


def served(folder, *overrides, asks="true"):
    """Let client 2 ask after round 3; return run directory, certificate, page, and the hash of the weights then."""
    method, *others = THREE
    experiment = config.loads(LIVE, overrides=[method % asks, *others, *overrides])
    run = run_live(experiment, out=folder)
    with Ledger(run / "requests.sqlite") as ledger:
        id_ = Intake(ledger, num_clients=4).ask([2], source="cli", actor="operator:test").request_id
    before = Checkpoints(run / "checkpoints", LIVE_BRANCH).load(3)
    run_live(experiment, out=folder, resume=True)
    path = run / "certificates" / f"{id_}.json"
    page = path.with_suffix(".html").read_text(encoding="utf-8")
    hash_before = weights_hash(before.vector, before.buffers)
    return run, json.loads(path.read_text(encoding="utf-8")), page, hash_before


@pytest.fixture(scope="module")
def unlearned(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FEDUNLEARN_SIGNING_KEY", raising=False)
        yield served(tmp_path_factory.mktemp("unlearned"))


def test_it_says_which_rounds_it_took(unlearned):
    _, document, page, _ = unlearned
    method = document["method"]["step"]
    assert (method["first_round"], method["round"], method["own_update"]) == (4, 6, [2])
    assert document["outcome"]["meaning"][0].startswith(
        "In rounds 4 to 6 the server removed from the shared model "
    )
    assert "Rounds 4 to 6: Client 2 took part in it." in page
    assert [(e["to"], e["round"]) for e in document["history"]] == [
        *[("received", None), ("scheduled", 4)],
        *(("unlearning", t) for t in (4, 5, 6)),
        *[("recovering", 6), ("forgotten", 6)],
    ]
    assert document["times"]["planned"]["round"] == 4 and document["times"]["applied"]["round"] == 6


def test_before_is_before_the_first_of_them(unlearned):
    _, document, _, before = unlearned
    assert document["weights"]["before"] == {"round": 3, "sha256": before, "reason": None}
    assert document["weights"]["after"]["round"] == document["weights"]["end"]["round"] == 6
    measured = document["measures"]["before"]
    assert measured["round"] == 3
    assert measured["clients"]["2"]["values"]["forget_accuracy"] is not None
    assert measured["validation"]["accuracy"] is not None


def test_what_lies_between_goes_with_what_lies_before(unlearned):
    run, document, _, _ = unlearned
    assert Checkpoints(run / "checkpoints", LIVE_BRANCH).rounds() == [6]
    assert f"checkpoints/{LIVE_BRANCH}-r0005.safetensors" in document["data"]["removed"]


def test_it_is_borne_out_by_ledger_and_weights(unlearned):
    run, *_ = unlearned
    findings = list(verify(run))
    assert [f.text for f in findings if f.holds is False] == []
    assert any("every fact in it follows from the ledger" in f.text for f in findings)


def test_one_that_claims_another_first_round_is_not(unlearned):
    run, document, _, _ = unlearned
    path = run / "certificates" / f"{document['request']['id']}.json"
    text = path.read_text(encoding="utf-8")
    try:
        path.write_text(text.replace('"first_round": 4', '"first_round": 5'), encoding="utf-8")
        assert [f for f in verify(run) if f.holds is False and "method.step.first_round" in f.text]
    finally:
        path.write_text(text, encoding="utf-8")


def test_taken_back_it_says_so_of_all_of_them(tmp_path, monkeypatch):
    combine = ThreeRounds.combine
    monkeypatch.setattr(
        ThreeRounds, "combine", lambda self, r: combine(self, r) * (1 if r.plan.step < 2 else math.nan)
    )
    run, document, _, before = served(tmp_path)
    assert document["outcome"]["state"] == "refused"
    text = " ".join(document["outcome"]["meaning"])
    assert "A step was tried in rounds 4 to 6, and all of it was rolled back" in text
    assert (document["weights"]["before"]["round"], document["weights"]["after"]["round"]) == (3, 6)
    assert document["weights"]["before"]["sha256"] == document["weights"]["after"]["sha256"] == before
    assert [f.text for f in verify(run) if f.holds is False] == []


def test_of_whom_nothing_was_asked_it_does_not_say_that_they_took_part(tmp_path):
    _, document, page, _ = served(tmp_path, asks="false")
    assert document["method"]["step"]["own_update"] == []
    assert "Rounds 4 to 6: the clients concerned took no part in it." in page


# -- from the plans alone ------------------------------------------------------------------------------------


def plan(round, *, step=0, requests=("r",), failed=(), **others):
    told = {"round": round, "train": [], "forget": [2, 4], "requests": list(requests), **others}
    return PlanRecord(round, told | ({"step": step} if step else {}), dict.fromkeys(failed, "lost"), True)


# Begun, broken off, begun anew; its second round in vain once.
PLANS = [
    *[
        plan(4, completes=False),
        plan(5, step=1, failed=[2], completes=False),
        plan(6, requests=(), forget=[]),
    ],
    *[plan(7, completes=False), plan(8, step=1, failed=[4], completes=False)],
    *[plan(9, step=1, stored={"4": 3}, completes=False), plan(10, step=2, asks=False)],
]


@pytest.mark.parametrize(("last", "first"), [(5, 4), (6, 6), (10, 7), (11, 11)])
def test_an_unlearning_begins_with_its_step_0(last, first):
    assert first_of(last, {p.round: p for p in PLANS}.get) == first


def test_it_takes_all_rounds_from_there_on():
    assert [p.round for p in rounds_of(10, PLANS)] == [7, 8, 9, 10]
    assert rounds_of(None, PLANS) == []
    assert rounds_of(10, [p for p in PLANS if p.round == 10]) == [PLANS[-1]]


class Record:
    """As much of a request as is looked at."""

    id, clients, parts, state = "r", (2,), (), "forgotten"
    unlearned_round, ended_round = 10, 12


def test_who_took_part_in_any_of_them_took_part():
    found = step(Record, PLANS, Standing())
    assert (found["first_round"], found["round"], found["own_update"], found["stored_update"]) == (
        7,
        10,
        [2],
        {},
    )
    assert found["others"] == 1
    other = type("Other", (Record,), {"clients": (4,)})
    found = step(other, PLANS, Standing())
    assert (found["own_update"], found["stored_update"]) == ([4], {"4": 3}), (
        "there first, and out of reach later"
    )


def test_it_was_planned_with_the_first_of_them():
    told = [("received", None), ("scheduled", 4), ("unlearning", 4), ("unlearning", 5), ("waiting", 5)]
    told += [("scheduled", 7), ("unlearning", 7), ("unlearning", 8), ("waiting", 8), ("scheduled", 9)]
    told += [("unlearning", 9), ("unlearning", 10), ("recovering", 10), ("forgotten", 12)]
    rest = (1e9, None, "", "")
    entries = [AuditEntry(n, "b", n, "r", None, *entry, *rest) for n, entry in enumerate(told)]
    assert times(Record, entries, PLANS)["planned"]["round"] == 7
    assert times(Record, entries, PLANS)["applied"]["round"] == 10


def test_the_weights_before_are_those_before_the_first():
    first = {p.round: p for p in PLANS}.get
    found = rounds_of_weights(Record, None, lambda last: first_of(last, first))
    assert found == {"before": 6, "after": 10, "end": 12}
