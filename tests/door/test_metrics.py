"""The metrics as Prometheus reads them: an independent reader of the text format, and figures that are known."""

import re

from fedunlearn.door.metrics import BOUNDS, CONTENT_TYPE, Answers, Federation
from fedunlearn.requests import LIVE_BRANCH, STATES, LeaseRecord, Ledger

LINE = re.compile(r"([a-z_]+)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'([a-z]+)="([^"\\\n]*)"')


def read(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Parse the text format and hold it to its rules: help and type before a metric's samples, no sample twice."""
    assert text.endswith("\n")
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    typed: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in typed
            typed[name] = kind
        elif not line.startswith("# HELP "):
            match = LINE.fullmatch(line)
            assert match, line
            name, labels = match[1], frozenset(LABEL.findall(match[2] or ""))
            assert re.sub("_(bucket|sum|count)$", "", name) in typed or name in typed, line
            assert (name, labels) not in found
            found[name, labels] = float(match[3])
    return found


def test_the_federations_figures(knock, at) -> None:
    for client in (3, 3, 4):
        name = knock("POST", "/requests", "alice", {"clients": [client]}).json["request_id"]
    knock("DELETE", f"/requests/{name}", "alice")
    (at.folder / "checkpoints").mkdir()
    for name in ("federation-r0007.safetensors", "federation-r0012.safetensors", "federation-r0099.json"):
        (at.folder / "checkpoints" / name).touch()
    with Ledger(at.folder / "requests.sqlite") as ledger:
        ledger.commit_plan(LIVE_BRANCH, 13, {"requests": []})
        ledger.take_lease(LIVE_BRANCH, "run 1").release()
        ledger.take_lease(LIVE_BRANCH, "run 2")
    answer = knock("GET", "/metrics", "eye")
    assert answer.headers["Content-Type"] == CONTENT_TYPE
    found = read(answer.body.decode())
    states = {
        dict(labels)["state"]: value
        for (name, labels), value in found.items()
        if name == "fedunlearn_requests"
    }
    assert set(states) == set(STATES)
    assert {state: count for state, count in states.items() if count} == {"received": 2, "withdrawn": 1}
    plain = {name: value for (name, labels), value in found.items() if not labels}
    assert plain["fedunlearn_round_completed"] == 12 and plain["fedunlearn_round_planned"] == 13
    assert plain["fedunlearn_trail_entries"] == 4
    assert plain["fedunlearn_lease_token"] == 2 and plain["fedunlearn_lease_held"] == 1
    assert 0 <= plain["fedunlearn_lease_holder_age_seconds"] < 60
    assert 0 < plain["fedunlearn_oldest_open_request_age_seconds"] < 60
    posts = frozenset({("method", "POST"), ("status", "202")})
    assert found["fedunlearn_door_answers_total", posts] == 3


def test_ages_are_counted_from_now() -> None:
    lease = LeaseRecord(token=3, holder="run", taken_at=900.0, renewed_at=990.0, seconds=15.0)
    federation = Federation({"received": 1}, 700.0, 5, 4, 9, lease)
    for now, held in ((1000.0, 1), (1006.0, 0)):
        plain = {name: value for (name, _), value in read(federation.text(now)).items()}
        assert plain["fedunlearn_oldest_open_request_age_seconds"] == now - 700
        assert plain["fedunlearn_lease_holder_age_seconds"] == now - 900
        assert plain["fedunlearn_lease_held"] == held
    nobody = read(Federation({}, None, 0, 0, 0, None).text(1000.0))
    assert not [name for name, _ in nobody if "lease" in name]


def test_answers_are_counted_once_in_every_bucket_that_holds_them() -> None:
    answers = Answers()
    seconds = [0.001, 0.005, 0.3, 100.0]
    for one in seconds:
        answers.add("GET", 200, one)
    found = read(answers.text())
    for bound in BOUNDS:
        count = found["fedunlearn_door_seconds_bucket", frozenset({("le", f"{bound:g}")})]
        assert count == sum(one <= bound for one in seconds)
    assert found["fedunlearn_door_seconds_bucket", frozenset({("le", "+Inf")})] == 4
    assert found["fedunlearn_door_seconds_count", frozenset()] == 4


def test_callers_cannot_invent_labels() -> None:
    answers = Answers()
    for method in ('A"} 1\nevil 1', "BREW", "X" * 1000):
        answers.add(method, 405, 0.0)
    found = read(answers.text())
    assert found["fedunlearn_door_answers_total", frozenset({("method", "other"), ("status", "405")})] == 3


HELP = {
    "fedunlearn_door_answers_total": "Answers given.",
    "fedunlearn_door_seconds": "Time from a request's head to its answer.",
    "fedunlearn_requests": "Forget requests by state.",
    "fedunlearn_oldest_open_request_age_seconds": "Age of the oldest request that has not ended.",
    "fedunlearn_round_planned": "Last round with a plan.",
    "fedunlearn_round_completed": "Last round with a checkpoint.",
    "fedunlearn_trail_entries": "Entries of the audit trail.",
    "fedunlearn_lease_token": "How often a server took the lease.",
    "fedunlearn_lease_holder_age_seconds": "Since the last server took the lease.",
    "fedunlearn_lease_held": "1 while its holder renews it: a server is at work.",
}


def test_every_metric_has_its_help() -> None:
    lease = LeaseRecord(token=3, holder="run", taken_at=900.0, renewed_at=990.0, seconds=15.0)
    text = Answers().text() + Federation({}, None, 5, 4, 9, lease).text(1000.0)
    assert dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE)) == HELP
