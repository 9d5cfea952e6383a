"""Requests for parts of clients' data at the door: the same three kinds as in an experiment file."""

import pytest

from fedunlearn.door.client import Remote
from fedunlearn.parts import Part
from fedunlearn.requests import LIVE_BRANCH, Head, Ledger


def post(knock, who, body, **headers):
    return knock("POST", "/requests", who, body, **headers)


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ({"clients": [3], "samples": 0.5}, [Part(8, 3, 0.5)]),
        ({"clients": [3], "samples": [17, 4]}, [Part(8, 3, (4, 17))]),
        ({"clients": [3, 1], "samples": {"1": [0], "3": [4, 2]}}, [Part(8, 1, (0,)), Part(9, 3, (2, 4))]),
        ({"clients": [3], "samples": 0.25, "classes": [5, 2]}, [Part(8, 3, 0.25, (2, 5))]),
        ({"classes": [2]}, [Part(8 + k, k, None, (2,)) for k in range(8)]),
    ],
)
def test_what_is_asked_for_is_in_the_ledger_and_in_the_answers(knock, at, body, parts):
    answer = post(knock, "alice", body)
    assert answer.status == 202, answer.error
    with Ledger(at.folder / "requests.sqlite") as ledger:
        (record,) = ledger.requests(LIVE_BRANCH)
        assert list(record.parts) == parts
        assert ledger.check_trail(LIVE_BRANCH, head=Head.parse(answer.json["head"])) == []
    clients = sorted(body.get("clients", range(8)))
    samples = body.get("samples")
    samples = sorted(samples) if isinstance(samples, list) else samples
    if isinstance(samples, dict):
        samples = {client: sorted(rows) for client, rows in samples.items()}
    expected = (clients, samples, sorted(body["classes"]) if "classes" in body else None)
    shown = knock("GET", answer.headers["Location"], "alice").json
    listed = knock("GET", "/requests", "alice").json["requests"][0]
    for told in (answer.json, shown, listed):
        assert (told["clients"], told["samples"], told["classes"]) == expected


def test_a_client_may_ask_about_its_own_data_only(knock):
    own = post(knock, "3", {"clients": [3], "classes": [2]})
    assert own.status == 202
    for body in ({"classes": [2]}, {"clients": [4], "samples": 0.5}, {"clients": [3, 4], "classes": [2]}):
        assert post(knock, "3", body).status == 403
    everyone = post(knock, "alice", {"classes": [2]}).headers["Location"]
    assert knock("GET", own.headers["Location"], "3").status == 200
    assert knock("GET", own.headers["Location"], "4").status == 403
    assert knock("GET", everyone, "3").status == 403, "of others, too"
    assert [r["request_id"] for r in knock("GET", "/requests", "3").json["requests"]] == [
        own.json["request_id"]
    ]
    assert knock("DELETE", own.headers["Location"], "3").json["state"] == "withdrawn"


SAMPLES = "samples: must be a share above 0 and at most 1, such as 0.5; or distinct rows, such as [4, 17]"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (
            {"samples": 0.5},
            "clients: is missing; name clients, or classes to forget every client's samples of them",
        ),
        ({}, "clients: is missing; name clients, or classes to forget every client's samples of them"),
        ({"classes": [55]}, "classes: 55 is not a class of this federation's data; must be from 0 to 9"),
        ({"clients": [3], "classes": [3, 13]}, "classes: 13 is not a class of this federation's data"),
        ({"clients": [3], "samples": 0}, SAMPLES),
        ({"clients": [3], "samples": 1.5}, SAMPLES),
        ({"clients": [3], "samples": "half"}, SAMPLES),
        ({"clients": [3], "samples": True}, SAMPLES),
        ({"clients": [3], "samples": []}, SAMPLES),
        ({"clients": [3], "samples": [-1]}, SAMPLES),
        ({"clients": [3], "samples": {"three": [1]}}, SAMPLES),
        (
            {"clients": [3], "samples": 1},
            "samples: 1 means all of them; leave it out to forget whole clients",
        ),
        ({"clients": [3, 4], "samples": [1]}, "samples: single rows belong to one client"),
        ({"clients": [3], "samples": {"4": [1]}}, "samples: must have the rows of each named client"),
        ({"clients": [3], "samples": [1, 1]}, "samples: names a row twice"),
        ({"clients": [3], "classes": []}, "classes: must name at least 1 class"),
        ({"clients": [3], "classes": [0.5]}, "classes[0]: must be a whole number"),
        ({"clients": [3], "classes": 2}, "classes: must be a list of class numbers, such as [3]"),
    ],
)
def test_what_means_nothing_is_refused_in_one_line(knock, at, body, says):
    answer = post(knock, "alice", body)
    assert answer.status == 422 and answer.error.startswith(says)
    with Ledger(at.folder / "requests.sqlite") as ledger:
        assert ledger.requests(LIVE_BRANCH) == []


def test_the_command_line_s_side_of_it(knock, at):
    remote = Remote(knock.url, at.tokens["alice"])
    remote.ask([3, 1], samples={1: [0], 3: [4]}, idempotency_key="a")
    receipt = remote.ask(None, classes=[2], idempotency_key="b")
    assert remote.ask(None, classes=[2], idempotency_key="b")["repeated"]
    first, second = remote.requests()
    assert second == remote.request(receipt["request_id"]).__class__(**vars(second))
    assert [(p.client, p.samples, p.classes) for p in first.parts] == [(1, (0,), None), (3, (4,), None)]
    assert second.owners == tuple(range(8)) and {str(p) for p in second.parts} == {"class 2"}


def test_the_page_and_the_schema_show_them(knock):
    schema = knock("GET", "/openapi.json").json["components"]["schemas"]["Ask"]
    assert {"clients": [3], "samples": 0.5} in schema["examples"] and {"classes": [2]} in schema["examples"]
    assert set(schema["properties"]) == {"clients", "samples", "classes"}
