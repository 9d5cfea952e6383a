"""The requests of a ledger as people read them: one line each, nothing cut off, nothing made up."""

import io
from collections import Counter

from rich.console import Console

from fedunlearn.report.request_table import request_table
from fedunlearn.requests import Ledger, RequestRecord


def shown(requests, width=100):
    """Return the table as printed, its lines split into cells."""
    output = io.StringIO()
    Console(file=output, width=width).print(request_table(requests))
    return [line.split() for line in output.getvalue().splitlines()]


def request(id, state, **others):
    given = {"clients": (1,), "at_round": 3, "unlearned_round": None, "ended_round": None} | others
    return RequestRecord(id=id, state=state, **given)


def test_one_line_per_request_in_the_ledgers_order():
    lines = shown(
        {
            "puf-0-s1": [
                request("request-2", "forgotten", clients=(2, 13), unlearned_round=4, ended_round=7),
                request("request-1", "recovering", unlearned_round=5),
            ],
            "natural-0-s1": [request("live", "received", at_round=None)],
        }
    )
    assert [line for line in lines if {"puf-0-s1", "natural-0-s1"} & set(line)] == [
        ["puf-0-s1", "request-2", "2,", "13", "3", "4", "forgotten", "7"],
        ["puf-0-s1", "request-1", "1", "3", "5", "recovering", "–"],
        ["natural-0-s1", "live", "1", "–", "–", "received", "–"],
    ]


def test_the_headings_say_what_the_numbers_are():
    text = [" ".join(line) for line in shown({"a": [request("r", "forgotten")]})]
    assert text[0] == "Forget requests"
    table = request_table({})
    headings = [" ".join(str(column.header).split()) for column in table.columns]
    assert headings == [
        "federation",
        "request",
        "clients",
        "asked after round",
        "unlearned in round",
        "state",
        "ended in round",
    ]
    assert table.row_count == 0


def test_long_names_are_folded_not_cut():
    """On a narrow terminal every letter of every cell is still there."""

    def letters(requests):
        return Counter(c for line in shown(requests, width=60) for word in line for c in word if c.isalnum())

    name, id, state = "puf-special-2-with-a-long-label-timeline-s1", "request-with-a-long-name", "superseded"
    cells = letters({name: [request(id, state, clients=(7, 8, 9))]}) - letters({})
    assert cells == Counter(c for c in f"{name}{id}{state}7893" if c.isalnum())


def test_what_a_ledger_holds_is_what_is_shown():
    with Ledger(":memory:") as ledger:
        ledger.submit("a", request_id="r", clients=[3, 1], at_round=2)
        ledger.commit_plan("a", 3, {"train": [], "forget": [1, 3], "requests": ["r"]})
        ledger.reconcile("a", {"r": ("forgotten", 5)})
        lines = shown({name: ledger.requests(name) for name in ledger.branches()})
    assert ["a", "r", "1,", "3", "2", "3", "forgotten", "5"] in lines


def test_the_requests_of_a_live_federation_came_at_a_time_and_their_ids_can_be_copied():
    asked = request(
        "r0123456789abcdef", "forgotten-unrecovered", at_round=None, clients=(3, 7), arrived_at=1795457218.5,
        unlearned_round=4, ended_round=9,
    )  # fmt: skip
    (line,) = [line for line in shown({"federation": [asked]}, width=100) if asked.id in line]
    assert line == [asked.id, "3,", "7", "2026-11-23", "18:06", "4", "forgotten-unrecovered", "9"]
    assert any(asked.id in line for line in shown({"federation": [asked]}, width=70)), "to be copied"
