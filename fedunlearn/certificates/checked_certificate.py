"""One certificate: its signature and edition, its page, and every fact in it against trail, ledger and weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from fedunlearn import __version__
from fedunlearn.certificates import certificate, retention_policy
from fedunlearn.certificates.checked_seals import named
from fedunlearn.certificates.facts import DAMAGED, GONE, no_weights, rounds_of_weights
from fedunlearn.certificates.findings import Book, Finding
from fedunlearn.certificates.kept import Kept
from fedunlearn.certificates.keys import PublicKey
from fedunlearn.certificates.page import page
from fedunlearn.certificates.retention import CERTIFICATES, CHECKPOINTS
from fedunlearn.certificates.signing import CERTIFICATE, digest, verifies
from fedunlearn.certificates.unlearning_rounds import first_of
from fedunlearn.config import Experiment
from fedunlearn.errors import RunError, UserError
from fedunlearn.plurals import counted
from fedunlearn.requests.chain import Head
from fedunlearn.requests.records import RequestRecord
from fedunlearn.runs.checkpoints import Checkpoints, weights_hash

FROM_THE_LEDGER = (
    *(
        "run",
        "request",
        "outcome",
        "times",
        "history",
        "method",
        "participation",
        "weights",
        "measures",
        "data",
    ),
    "related",
)
"""Sections of a certificate that are made from ledger and settings: made again, they must come out the same."""


@dataclass
class Surroundings:
    """What a certificate lies in.

    Attributes
    ----------
    run : Path
    books : Mapping
        Federation → what the ledger says of it.
    experiment : Experiment or None
        None where ``experiment.toml`` cannot be read.
    """

    run: Path
    books: Mapping[str, Book]
    experiment: Experiment | None
    _editions: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def editions(self, request: str) -> dict[str, dict[str, Any]]:
        """Return all editions of a request's certificate by the SHA-256 of their text, those that can be read."""
        if request not in self._editions:
            found = {}
            folder = self.run / CERTIFICATES
            for path in [folder / f"{request}.json", *sorted(folder.glob(f"{request}.edition-*.json"))]:
                try:
                    document = certificate.read(path)
                except UserError:
                    continue
                found[digest(document)] = document
            self._editions[request] = found
        return self._editions[request]


def check(
    path: Path, public_keys: Sequence[PublicKey], surroundings: Surroundings | None
) -> Iterator[Finding]:
    """Check one certificate.

    Parameters
    ----------
    surroundings
        None: it lies in no run directory.

    Raises
    ------
    UserError
        It is no certificate.
    """
    document = certificate.read(path)
    name = f"certificate {path.name}"
    yield _signature(path, document, public_keys, name)
    yield from _page(path, document, name, in_run=surroundings is not None)
    if surroundings is None:
        yield Finding(None, f"{name}: is not in a run directory; trail and weights were not compared")
        return
    yield from _file(path, document, name)
    found = _against_trail(document, surroundings.books, name)
    yield found
    if found.holds:
        yield from _against_ledger(document, surroundings, name)
    yield from _against_weights(document, surroundings, name)


def _signature(
    path: Path, document: Mapping[str, Any], public_keys: Sequence[PublicKey], name: str
) -> Finding:
    issuer, signature = document["issuer"], document["signature"]
    if signature["value"] is None:
        if (signed := _signed_successor(path, document, public_keys)) is not None:
            return Finding(None, f"{name}: is not signed; the signed edition {signed} replaces it")
        holds = False if public_keys else None
        return Finding(holds, f"{name}: is not signed ({signature['reason']})")
    try:
        carried = PublicKey.from_text(issuer["public_key"])
    except (ValueError, TypeError):
        return Finding(False, f"{name}: has no readable public key")
    keys = public_keys or (carried,)
    signer = _signer(document, keys)
    if signer is None or signature["algorithm"] != "Ed25519" or signature["reason"] is not None:
        return Finding(False, f"{name}: none of {named(keys)} has signed this text")
    if issuer["key_id"] != carried.key_id or carried != signer:
        return Finding(False, f"{name}: was signed by key {signer.key_id}, but names another")
    if public_keys:
        return Finding(True, f"{name}: signed by key {signer.key_id}")
    words = f"unchanged since it was signed by key {signer.key_id}; only --public-key shows whose key that is"
    return Finding(True, f"{name}: {words}")


def _signer(document: Mapping[str, Any], keys: Sequence[PublicKey]) -> PublicKey | None:
    signature, unsigned = document["signature"]["value"], certificate.unsigned_part(document)
    return next((key for key in keys if verifies(CERTIFICATE, unsigned, signature, key)), None)


def _signed_successor(
    path: Path, document: Mapping[str, Any], public_keys: Sequence[PublicKey]
) -> int | None:
    """Return the first signed edition that took the place of this unsigned one, each naming the one before.

    It must be signed by one of the keys, if any are known, or its word for what it replaced would be worth nothing.
    """
    request = path.name.partition(".")[0]
    newest = path.with_name(f"{request}.json")
    while path != newest:
        edition = document["edition"] + 1
        path = path.with_name(f"{request}.edition-{edition}.json")
        path = path if path.is_file() else newest
        if not path.is_file():
            return None
        before, document = document, certificate.read(path)
        if document["edition"] != edition or (document["replaces"] or {}).get("sha256") != digest(before):
            return None
        if document["signature"]["value"] is not None:
            signed = not public_keys or _signer(document, public_keys) is not None
            return edition if signed else None
    return None


def _page(path: Path, document: Mapping[str, Any], name: str, *, in_run: bool) -> Iterator[Finding]:
    shown = path.with_suffix(".html")
    if not shown.is_file():
        if in_run and "." not in path.stem:  # earlier editions have none
            yield Finding(
                False,
                f"{name}: its page {shown.name} is missing; the server writes it again at its next start",
            )
    elif document["issuer"]["software"] != f"fedunlearn {__version__}":
        yield Finding(
            None, f"{name}: its page was written by {document['issuer']['software']} and not compared"
        )
    elif shown.read_bytes() != page(document).encode():
        yield Finding(False, f"{name}: its page {shown.name} does not show this certificate")


def _file(path: Path, document: Mapping[str, Any], name: str) -> Iterator[Finding]:
    """Hold a certificate against its file: its name, its text, and the edition that it took the place of."""
    request, edition = document["request"]["id"], document["edition"]
    if path.name not in (f"{request}.json", f"{request}.edition-{edition}.json"):
        yield Finding(False, f"{name}: belongs to request {request}, edition {edition}")
    if path.read_bytes() != certificate.dumps(document).encode():
        yield Finding(False, f"{name}: its text was rewritten: same content, different bytes")
    replaced = document["replaces"]
    if (replaced is None) != (edition == 1):
        yield Finding(
            False, f"{name}: is edition {edition}, but replaces {'none' if replaced is None else 'one'}"
        )
    if replaced is None:
        return
    before = path.with_name(f"{request}.edition-{replaced['edition']}.json")
    try:
        earlier = certificate.read(before)
    except UserError as error:
        yield Finding(False, f"{name}: the edition it replaced cannot be read: {error}")
        return
    stated = {"edition": earlier["edition"], "issued_at": earlier["issued_at"], "sha256": digest(earlier)}
    if replaced != stated or replaced["edition"] != edition - 1:
        yield Finding(False, f"{name}: {before.name} is not the edition it replaced")


def _against_trail(document: Mapping[str, Any], books: Mapping[str, Book], name: str) -> Finding:
    request, head = document["request"], document["trail"]
    book = books.get(document["run"]["federation"])
    entries = book.of_request.get(request["id"], []) if book else []
    if book is None or not entries or request["id"] not in book.records:
        return Finding(False, f"{name}: the trail has no request {request['id']}")
    if book.problems:
        return Finding(False, f"{name}: the trail that should confirm it is damaged")
    if not book.has(Head(head["entry"], head["hash"])):
        return Finding(False, f"{name}: the trail does not contain its head {head['entry']}:{head['hash']}")
    state = document["outcome"]["state"]
    if state != entries[-1].to_state or head["entry"] < entries[-1].entry:
        return Finding(False, f"{name}: contradicts the trail about request {request['id']}")
    return Finding(True, f"{name}: {state}, as in the trail (head {head['entry']})")


def _against_ledger(document: Mapping[str, Any], surroundings: Surroundings, name: str) -> Iterator[Finding]:
    """Write the certificate anew from what the ledger holds, as of its head and round, and compare."""
    experiment = surroundings.experiment
    if experiment is None or experiment.retention is None:
        yield Finding(None, f"{name}: its facts were not compared, as the run's settings cannot be read")
        return
    if document["issuer"]["software"] != f"fedunlearn {__version__}":
        yield Finding(
            None, f"{name}: was written by {document['issuer']['software']}; its wording was not compared"
        )
        return
    expected = _written_anew(document, surroundings, experiment)
    differing = [
        where
        for section in FROM_THE_LEDGER
        for where in _differences(document[section], expected[section], section)
    ]
    for where in differing[:3]:
        yield Finding(False, f"{name}: its {where} differs from ledger and settings")
    if len(differing) > 3:
        more = counted(len(differing) - 3, "more of its facts differs", "more of its facts differ")
        yield Finding(False, f"{name}: {more} from ledger and settings")
    if document["trail"]["problems"]:
        yield Finding(None, f"{name}: the trail was found damaged when it was written")
    if not differing:
        yield Finding(True, f"{name}: every fact in it follows from the ledger")


def _written_anew(
    document: Mapping[str, Any], surroundings: Surroundings, experiment: Experiment
) -> dict[str, Any]:
    book = surroundings.books[document["run"]["federation"]]
    record, data = book.records[document["request"]["id"]], document["data"]
    head, round = Head(document["trail"]["entry"], document["trail"]["hash"]), document["trail"]["round"]
    measures = dict(book.measures[record.id])
    put_away = [str(name) for name in measures.get("retention", {}).get("put_away", [])]
    account = retention_policy.account(surroundings.run, experiment, record, put_away, data["superlink"])
    # Where the folder lies is told as the server was told of the run directory, which may have been moved.
    if account["quarantine"] is not None and data["quarantine"] is not None:
        account["quarantine"] = data["quarantine"]
    for stage in certificate.STAGES:
        if "told" in measures.get(stage, {}):
            measures[stage] = {**measures[stage], "told": _told(document, stage, measures[stage]["told"])}
    return certificate.compose(
        certificate.Evidence(
            run=document["run"]["name"],
            experiment=experiment,
            branch=book.branch,
            record=record,
            entries=book.of_request[record.id],
            relations=book.relations,
            plans=[plan for plan in book.plans if plan.round <= round],
            weights=_weights(document, record, book),
            measures=measures,
            kept=[Kept(**item) for item in data["remaining"]],
            retention=account,
            head=head,
            round=round,
            issued_at=datetime.now(UTC).timestamp(),
            earlier=_earlier(document, surroundings),
        ),
        key=None,
    )


def _told(document: Mapping[str, Any], stage: str, told: Sequence[int]) -> Sequence[int]:
    """Return whose nodes knew when the certificate was written; more may know by now."""
    stated = document["measures"][stage].get("told", [])
    return stated if set(stated) <= set(told) else told


def _weights(document: Mapping[str, Any], record: RequestRecord, book: Book) -> dict[str, dict[str, Any]]:
    at_end = next((plan for plan in book.plans if plan.round == record.ended_round), None)
    noted = book.measures[record.id].get("weights", {})
    found = {}
    first = partial(first_of, plan_of={plan.round: plan for plan in book.plans}.get)
    for name, round in rounds_of_weights(record, at_end, first).items():
        why = document["weights"][name]["reason"]
        if round is None:
            found[name] = no_weights(name)
        elif name in noted:
            found[name] = dict(noted[name])
        else:
            found[name] = {"round": round, "sha256": None, "reason": why if why in (GONE, DAMAGED) else GONE}
    return found


def _earlier(document: Mapping[str, Any], surroundings: Surroundings) -> dict[str, dict[str, Any]]:
    found = {}
    for stated in document["related"]["earlier_certificates"]:
        editions = surroundings.editions(stated["request"])
        if stated["sha256"] in editions:
            found[stated["request"]] = editions[stated["sha256"]]
    return found


def _differences(stated: Any, expected: Any, place: str) -> Iterator[str]:
    """Yield the places at which two JSON values differ."""
    if isinstance(stated, dict) and isinstance(expected, dict) and stated.keys() == expected.keys():
        for name, value in stated.items():
            yield from _differences(value, expected[name], f"{place}.{name}")
    elif isinstance(stated, list) and isinstance(expected, list) and len(stated) == len(expected):
        for index, (value, other) in enumerate(zip(stated, expected, strict=True)):
            yield from _differences(value, other, f"{place}[{index}]")
    elif type(stated) is not type(expected) or stated != expected:
        yield place


def _against_weights(document: Mapping[str, Any], surroundings: Surroundings, name: str) -> Iterator[Finding]:
    folder = surroundings.run / CHECKPOINTS
    if not folder.is_dir():
        return
    checkpoints = Checkpoints(folder, document["run"]["federation"])
    for which, stated in document["weights"].items():
        round, expected = stated["round"], stated["sha256"]
        if round is None or expected is None or not checkpoints.path(round).is_file():
            continue
        try:
            snapshot = checkpoints.load(round)
        except RunError as error:
            yield Finding(False, f"{name}: the weights of round {round} cannot be read: {error}")
            continue
        if weights_hash(snapshot.vector, snapshot.buffers) != expected:
            yield Finding(False, f"{name}: the weights of round {round} ({which}) are not those it states")
        else:
            yield Finding(True, f"{name}: the weights of round {round} ({which}) are those it states")
