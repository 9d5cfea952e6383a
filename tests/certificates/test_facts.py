"""Every fact of a certificate against the ledger, and every fact on its page: by an account made here, line by line.

No field is picked: whatever stands in a certificate must be in the account, or the test fails.
"""

import hashlib
import html
import json
import re
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedunlearn import __version__, config
from fedunlearn.certificates import certificate
from fedunlearn.certificates.facts import method_in_words
from fedunlearn.certificates.signing import digest
from fedunlearn.config.toml_tree import plain
from fedunlearn.runs.checkpoints import weights_hash
from tests.certificates.eventful_run import eventful_run
from tests.certificates.live_run import BRANCH, KEY, LiveRun, weights_after
from tests.certificates.test_verification import paths_to_leaves
from tests.e2e.tiny import tiny

WORDS = {
    *(
        "outcome.title",
        "outcome.tone",
        "outcome.meaning",
        "outcome.caveats",
        "outcome.limits",
        "method.in_words",
    ),
    *(
        "method.bound",
        "data.policy_in_words",
        "data.note",
        "data.superlink",
        "data.open",
        "data.not_examined",
    ),
    *("data.remaining", "signature.value"),
}
"""Sentences, and what lay in the folder: test_certificate.py, test_retention.py and test_keys.py are about these."""

UNLEARNED = ("forgotten", "forgotten-unrecovered", "superseded")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LiveRun:
    return eventful_run(tmp_path_factory.mktemp("facts") / "run")


@pytest.fixture(scope="module")
def ledger(run: LiveRun) -> dict[str, list[dict[str, Any]]]:
    """Every table as plain rows."""
    with sqlite3.connect(f"file:{run.folder / 'requests.sqlite'}?immutable=1", uri=True) as connection:
        connection.row_factory = sqlite3.Row
        tables = ("requests", "audit", "plans", "measures", "parts", "heads", "seals")
        return {name: [dict(row) for row in connection.execute(f"SELECT * FROM {name}")] for name in tables}


@pytest.fixture(scope="module")
def documents(run: LiveRun) -> dict[str, dict[str, Any]]:
    return {id_: json.loads(path.read_bytes()) for id_, path in certificate.issued(run.folder).items()}


def at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def account(
    run: LiveRun, ledger: dict[str, list[dict[str, Any]]], documents: dict[str, dict[str, Any]], id_: str
) -> dict[str, Any]:
    """What the certificate of a request must say, from the rows, by loops."""
    (request,) = [row for row in ledger["requests"] if row["id"] == id_]
    trail = [row for row in ledger["audit"] if row["request_id"] == id_]
    head = documents[id_]["trail"]["entry"]
    (last,) = [row for row in ledger["audit"] if row["entry"] == head]
    # Of all heads that are in the ledger the first that covers the end of this request.
    assert head == min(row["entry"] for row in ledger["heads"] if row["entry"] >= trail[-1]["entry"])
    # Issued after the round that was complete when this head was signed.
    round = max(
        plan["round"] for plan in ledger["plans"] if plan["round"] <= documents[id_]["trail"]["round"]
    )
    numbers = json.loads(request["clients"])
    parts = [
        {"number": row["number"], "client": row["client"], **json.loads(row["what"])}
        for row in ledger["parts"]
        if row["number"] in numbers
    ]
    owner = {number: number for number in numbers} | {part["number"]: part["client"] for part in parts}
    actor = request["actor"]
    asked_by = (
        "an operator" if actor.startswith("operator:") else f"client {actor.removeprefix('client:')} itself"
    )
    unlearned = request["unlearned_round"]
    plans = {
        row["round"]: (json.loads(row["plan"]), json.loads(row["failed"] or "{}")) for row in ledger["plans"]
    }
    measured = {
        row["stage"]: json.loads(row["document"]) for row in ledger["measures"] if row["request_id"] == id_
    }
    experiment = config.load(run.folder / "experiment.toml")

    participation = {}
    for number in numbers:
        rounds, planned, after, until = [], 0, 0, 0
        for number_of_round in sorted(plans):
            plan, failed = plans[number_of_round]
            if number_of_round > round or not plan["train"]:
                continue
            until = number_of_round
            if owner[number] in plan["train"]:
                planned = number_of_round
                if number_of_round > request["ended_round"]:
                    after += 1
                elif str(owner[number]) not in failed:
                    rounds.append(number_of_round)
        left = rounds and planned == rounds[-1] < until
        participation[str(number)] = {
            "rounds": len(rounds),
            "first": rounds[0] if rounds else None,
            "last": rounds[-1] if rounds else None,
            "without_it_until": until if left else None,
            "planned_after_end": after,
        }

    before = [row for row in ledger["audit"] if row["entry"] <= head]
    ended = {row["request_id"] for row in before if row["to_state"] in documents_states(ledger)}
    sharing = [
        row
        for row in ledger["requests"]
        if row["id"] != id_ and set(json.loads(row["clients"])) & {*numbers, *owner.values()}
    ]
    done = [
        row
        for row in sharing
        if row["unlearned_round"] is not None and row["id"] in {e["request_id"] for e in before}
    ]
    others = [row for row in ledger["requests"] if row["id"] != id_]
    forgotten_by: dict[str, list[str]] = {}
    if request["state"] not in (*UNLEARNED, "duplicate"):
        for number in numbers:
            by = sorted(
                r["id"] for r in done if number in json.loads(r["clients"]) and applied(ledger, r["id"], head)
            )
            if by:
                forgotten_by[str(number)] = by
    # Of those that ended alike the last is named, for each client.
    earlier = set()
    for number in {*numbers, *owner.values()}:
        for state in documents_states(ledger):
            alike = [
                (row["arrival"], row["id"])
                for row in sharing
                if number in json.loads(row["clients"])
                and row["state"] == state
                and row["id"] in ended
                and row["arrival"] < request["arrival"]
            ]
            earlier |= {max(alike)[1]} if alike else set()

    step: dict[str, Any] = {"round": None, "reason": "no unlearning step was applied for this request"}
    if unlearned is not None:
        forget = plans[unlearned][0]["forget"]
        step = {
            "round": unlearned,
            "own_update": sorted(set(forget) & set(numbers)),
            "stored_update": {},
            "already": sorted(set(numbers) - set(forget)),
            "never": [],
            "others": len(set(forget) - set(numbers)),
            "reason": None,
        }
    weights = {}
    for name, of in (
        ("before", unlearned and unlearned - 1),
        ("after", unlearned),
        ("end", request["ended_round"]),
    ):
        hash_ = None if of is None else weights_hash(weights_after(of))
        why = None if hash_ else "no unlearning step was applied for this request"
        weights[name] = {"round": of, "sha256": hash_, "reason": why}
    nothing = (
        "nothing was recorded for it" if unlearned else "no unlearning step was applied for this request"
    )
    whole: dict[str, list[int]] = {"forgotten": [], "left_out": [], "open": []}
    for client in sorted({part["client"] for part in parts}):
        named = [row for row in ledger["requests"] if client in json.loads(row["clients"])]
        came = [r for r in named if any(e["request_id"] == r["id"] for e in before)]
        if any(applied(ledger, row["id"], head) for row in came):
            whole["forgotten"].append(client)
        elif any(row["state"] in ("excluded", "failed") and row["id"] in ended for row in came):
            whole["left_out"].append(client)
        elif any(row["id"] not in ended for row in came):
            whole["open"].append(client)
    scheduled = [row for row in trail if row["to_state"] == "scheduled"]
    recovering = [row for row in trail if row["to_state"] == "recovering"]
    remark = re.sub(r"\boperator:\S+", "an operator", trail[-1]["detail"])
    remark = re.sub(r"\bclient:(\d+)", r"client \1", remark)
    put_away = measured.get("retention", {}).get("put_away", [])
    live = "it arrived while the federation ran, not from a script"
    return {
        "kind": "certificate of a forget request",
        "schema": certificate.SCHEMA,
        "edition": 1,
        "replaces": None,
        "issued_at": documents[id_]["issued_at"],  # between its head and what came next
        "run": {
            "name": run.folder.name,
            "experiment": "hospitals",
            "federation": BRANCH,
            "settings_sha256": config.digest(experiment),
        },
        "request": {
            "id": id_,
            "clients": sorted(set(owner.values())),
            **({"parts": parts} if parts else {}),
            "asked_by": asked_by,
            "came_by": request["source"],
        },
        "outcome": {
            "state": trail[-1]["to_state"],
            "unlearned": unlearned is not None,
            "remark": remark or None,
        },
        "times": {
            "asked": {"at": at(request["arrived_at"]), "round": None, "reason": live},
            "planned": {"at": at(scheduled[-1]["at"]), "round": scheduled[-1]["round"], "reason": None}
            if scheduled
            else {"at": None, "round": None, "reason": "no plan of a round named this request"},
            "applied": {"at": at(recovering[-1]["at"]), "round": unlearned, "reason": None}
            if recovering
            else {
                "at": None,
                "round": None,
                "reason": "no unlearning step was applied for this request",
            },
            "ended": {"at": at(trail[-1]["at"]), "round": request["ended_round"], "reason": None},
        },
        "history": [
            {
                "entry": row["entry"],
                "from": row["from_state"],
                "to": row["to_state"],
                "round": row["round"],
                "at": at(row["at"]),
                "hash": row["hash"],
            }
            for row in trail
        ],
        "method": {
            "step": step,
            "settings": {
                name: value
                for name, value in plain(experiment).items()
                if name in ("method", "recover", "requests", "guard")
            },
        },
        "participation": participation,
        "weights": weights,
        "measures": {
            stage: measured.get(stage, {"round": None, "reason": nothing})
            for stage in ("before", "unlearned", "ended")
        },
        "data": {"policy": "purge", "removed": put_away, "moved": [], "quarantine": None},
        "related": {
            "same_as": request["same_as"],
            "done_by": sorted(r["id"] for r in done) if request["state"] == "duplicate" else [],
            "forgotten_by": forgotten_by,
            "recovery_taken_over_by": [],
            "same_step": sorted(r["id"] for r in others if unlearned and r["unlearned_round"] == unlearned),
            "same_step_more": 0,
            "as_a_whole": whole,
            "earlier_certificates": [
                {
                    "request": other,
                    "state": documents[other]["outcome"]["state"],
                    "title": documents[other]["outcome"]["title"],
                    "sha256": digest(documents[other]),
                }
                for other in sorted(earlier)
            ],
        },
        "trail": {"entry": head, "hash": last["hash"], "round": round, "problems": []},
        "issuer": {
            "software": f"fedunlearn {__version__}",
            "key_id": hashlib.sha256(KEY.public.raw).hexdigest()[:16],
            "public_key": KEY.public.text,
        },
        "signature": {"algorithm": "Ed25519", "reason": None},
    }


def documents_states(ledger: dict[str, list[dict[str, Any]]]) -> set[str]:
    """The states that end a request: from which no entry leads on."""
    return (
        {row["to_state"] for row in ledger["audit"]}
        - {row["from_state"] for row in ledger["audit"]}
        - {
            "recovering",
            "received",
        }
    )


def applied(ledger: dict[str, list[dict[str, Any]]], id_: str, head: int) -> bool:
    return any(
        row["request_id"] == id_ and row["to_state"] == "recovering" and row["entry"] <= head
        for row in ledger["audit"]
    )


MISSING = object()


def value_at(document: Any, leaf: tuple[Any, ...]) -> Any:
    for key in leaf:
        try:
            document = document[key]
        except (LookupError, TypeError):
            return MISSING
    return document


def is_about_words(leaf: tuple[Any, ...]) -> bool:
    names = [key for key in leaf if isinstance(key, str)]
    return any(".".join(names[:length]) in WORDS for length in range(1, len(names) + 1))


def test_the_run_has_what_makes_facts_differ(documents: dict[str, dict[str, Any]]) -> None:
    asked_by = {document["request"]["asked_by"] for document in documents.values()}
    assert asked_by == {"an operator", "client 1 itself", "client 3 itself", "client 4 itself"}
    assert {document["request"]["came_by"] for document in documents.values()} == {"http", "cli"}
    assert len({document["outcome"]["state"] for document in documents.values()}) == 6
    assert any("parts" in document["request"] for document in documents.values())


def test_every_fact_of_every_certificate_is_what_the_ledger_says(
    run: LiveRun, ledger: dict[str, list[dict[str, Any]]], documents: dict[str, dict[str, Any]]
) -> None:
    for id_, document in documents.items():
        expected = account(run, ledger, documents, id_)
        for leaf in paths_to_leaves(document):
            if not is_about_words(leaf):
                found = value_at(document, leaf)
                assert value_at(expected, leaf) == found, (id_, leaf, found, value_at(expected, leaf))
        for leaf in paths_to_leaves(expected):
            assert value_at(document, leaf) == value_at(expected, leaf), (id_, leaf)


def test_who_asked_is_never_named_and_never_another(
    ledger: dict[str, list[dict[str, Any]]], documents: dict[str, dict[str, Any]], run: LiveRun
) -> None:
    for id_ in documents:
        page = (run.folder / "certificates" / f"{id_}.html").read_text(encoding="utf-8")
        assert "anna" not in json.dumps(documents[id_]) + page
        assert "bert" not in json.dumps(documents[id_]) + page


def test_every_fact_stands_on_the_page(run: LiveRun, documents: dict[str, dict[str, Any]]) -> None:
    """Whatever is a text, a time, a hash or a count of this request: as it is, or as people write it."""
    not_shown = {
        *("kind", "schema", "edition", "replaces", "outcome.state", "outcome.tone", "outcome.unlearned"),
        *("run.federation", "run.settings_sha256", "method.settings", "history.from", "issuer.public_key"),
        *("signature.algorithm", "data.policy", "data.superlink.state", "data.remaining.holds", "data.open"),
        *("data.superlink.messages", "data.superlink.objects", "trail.round", "request.parts", "measures"),
        *("related.earlier_certificates.sha256", "related.earlier_certificates.state", "data.removed"),
        *("participation.without_it_until", "participation.planned_after_end", "method.step.others"),
    }
    for id_, document in documents.items():
        page = html.unescape(
            re.sub(r"<[^>]+>", " ", (Path(run.folder) / "certificates" / f"{id_}.html").read_text("utf-8"))
        )
        page = " ".join(page.split())
        for leaf in paths_to_leaves(document):
            names = [key for key in leaf if isinstance(key, str) and not key.isdigit()]
            if any(".".join(names[:length]) in not_shown for length in range(1, len(names) + 1)):
                continue
            value = value_at(document, leaf)
            if value in (None, [], {}) or isinstance(value, bool):
                continue
            if leaf[0] == "times" and leaf[-1] == "reason" and document["times"][leaf[1]]["at"] is not None:
                continue  # why no round stands beside a time
            if leaf == ("method", "bound") and not document["outcome"]["unlearned"]:
                continue  # nothing was applied that could have been bounded
            when = leaf[-1] in ("at", "issued_at")
            shown = value.replace("T", " ").removesuffix("Z") if when else " ".join(str(value).split())
            assert shown in page, (id_, leaf, value)


@pytest.mark.parametrize(
    ("settings", "end"),
    [
        ((), "times 2, are subtracted from the model in a round of their own"),
        (
            ("method[1].mode=regular",),
            "times 20, are subtracted from the model in a round together with the other clients",
        ),
        (
            ("method[1].mode=regular", "method[1].retain-rate=0.5"),
            "in a round together with the other clients, whose updates count 0.5 times",
        ),
    ],
)
def test_what_puf_does_is_said_with_its_factors(settings: tuple[str, ...], end: str) -> None:
    assert method_in_words(tiny(*settings)).endswith(end)
