"""``fedunlearn verify``: whether certificates, signed heads, the trail and checkpoints still bear each other out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedunlearn import __version__
from fedunlearn.errors import RunError, UserError
from fedunlearn.requests import certificate
from fedunlearn.requests.certificate_facts import history
from fedunlearn.requests.certificate_names import numbers_of, parts_of
from fedunlearn.requests.certificate_page import page
from fedunlearn.requests.clerk import signed_head_document
from fedunlearn.requests.findings import LEDGER, Book, Finding, books
from fedunlearn.requests.keys import PublicKey
from fedunlearn.requests.missing import missing_certificates, missing_checkpoints, missing_entries
from fedunlearn.requests.retention import CERTIFICATES, CHECKPOINTS
from fedunlearn.requests.signing import CERTIFICATE, HEAD, digest, verifies
from fedunlearn.requests.transitions import LedgerError
from fedunlearn.runs.checkpoints import Checkpoints, weights_hash


def verify(path: Path, *, public_keys: Sequence[PublicKey] = ()) -> list[Finding]:
    """Check a run directory, or one certificate (with its run directory, where it still lies in one).

    Parameters
    ----------
    public_keys
        The keys that signatures must be of, from a place that is trusted. None given: certificates are checked with
        the key that each carries, which shows that nothing was changed since, but not who signed.

    Raises
    ------
    UserError
        There is neither a run directory nor a certificate at this path.
    """
    if path.is_dir():
        if not (path / LEDGER).is_file():
            raise UserError(f"{path}: holds no {LEDGER}; name a run directory or a certificate")
        return list(_run(path, public_keys))
    run = path.resolve().parent.parent
    in_run = path.resolve().parent.name == CERTIFICATES and (run / LEDGER).is_file()
    return list(_certificate(path, public_keys, run if in_run else None, books(run) if in_run else {}))


def _run(run: Path, public_keys: Sequence[PublicKey]) -> Iterator[Finding]:
    known = books(run)
    certified = certificate.issued(run)
    keyed = bool(public_keys)
    if not known:
        yield Finding(False if keyed else None, "ledger: knows of no federation, neither request nor plan")
    for book in known.values():
        for problem in book.problems:
            yield Finding(False, f"trail of {book.branch}: {problem}")
        yield from missing_entries(book)
        if book.entries and not book.problems:
            words = f"{len(book.entries)} entries, each follows from those before it"
            yield Finding(True, f"trail of {book.branch}: {words}")
        yield from _heads(book, public_keys)
        yield from missing_certificates(run, book, certified, keyed=keyed)
        yield from missing_checkpoints(run, book)
    yield from _checkpoints(run)
    for path in sorted((run / CERTIFICATES).glob("*.json")):
        yield from _certificate(path, public_keys, run, known)


def _heads(book: Book, public_keys: Sequence[PublicKey]) -> Iterator[Finding]:
    name = f"signed heads of {book.branch}"
    if not book.signed:
        if public_keys:
            words = (
                f"there are none; nothing shows that the trail is the one that {_named(public_keys)} signed"
            )
            yield Finding(False, f"{name}: {words}")
        else:
            yield Finding(None, f"{name}: there are none")
        return
    if not public_keys:
        yield Finding(None, f"{name}: {len(book.signed)}; name a public key to check their signatures")
        return
    bad = 0
    for signed in book.signed:
        document = signed_head_document(book.branch, signed.head, signed.at)
        if not any(verifies(HEAD, document, signed.signature, key) for key in public_keys):
            bad += 1
            yield Finding(
                False, f"{name}: that of entry {signed.entry} is not signed by {_named(public_keys)}"
            )
    if not bad:
        last = book.signed[-1].entry
        beyond = max(book.hashes, default=0) - last
        later = f"; {beyond} later entries are not signed" if beyond else ""
        yield Finding(True, f"{name}: {len(book.signed)}, the last of entry {last}{later}")


def _checkpoints(run: Path) -> Iterator[Finding]:
    """Compare each checkpoint with the hash in its readable copy, which may be missing after a crash."""
    files = sorted((run / CHECKPOINTS).glob("*.safetensors"))
    compared = 0
    for path in files:
        try:
            noted = json.loads(path.with_suffix(".json").read_text()).get("sha256")
        except (OSError, ValueError, AttributeError):
            yield Finding(None, f"checkpoint {path.name}: no hash stands beside it")
            continue
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != noted:
            yield Finding(False, f"checkpoint {path.name}: is not the file whose hash stands beside it")
        compared += found == noted
    if compared:
        yield Finding(True, f"checkpoints: {compared} of {len(files)} as their hashes say")


def _certificate(
    path: Path, public_keys: Sequence[PublicKey], run: Path | None, books: Mapping[str, Book]
) -> Iterator[Finding]:
    name = f"certificate {path.name}"
    try:
        document = certificate.read(path)
        yield _signature(path, document, public_keys, name)
        yield from _page(path, document, name)
        if run is None:
            yield Finding(None, f"{name}: lies in no run directory; trail and weights were not compared")
            return
        yield _against_trail(document, books, name)
        yield from _against_weights(document, run, name)
    except (LookupError, TypeError, ValueError, AttributeError, LedgerError) as error:
        yield Finding(False, f"{name}: something is missing or of a wrong kind ({error!r})")
    except UserError as error:
        if run is None:
            raise
        yield Finding(False, str(error))


def _signature(
    path: Path, document: Mapping[str, Any], public_keys: Sequence[PublicKey], name: str
) -> Finding:
    signature = document["signature"]["value"]
    if signature is None:
        if (signed := _signed_successor(path, document, public_keys)) is not None:
            return Finding(None, f"{name}: not signed; replaced by the signed edition {signed}")
        holds = False if public_keys else None
        return Finding(holds, f"{name}: is not signed ({document['signature']['reason']})")
    keys = public_keys
    if not keys:
        try:
            keys = (PublicKey.from_text(document["issuer"]["public_key"]),)
        except (ValueError, TypeError):
            return Finding(False, f"{name}: carries no public key that could be read")
    signer = _signer(document, keys)
    if signer is None:
        return Finding(False, f"{name}: its signature is not one of {_named(keys)} under this text")
    if public_keys:
        return Finding(True, f"{name}: signed by key {signer.key_id}")
    words = (
        f"unchanged since it was signed by key {signer.key_id}; whose key that is, only --public-key tells"
    )
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


def _named(keys: Sequence[PublicKey]) -> str:
    return " or ".join(f"key {key.key_id}" for key in keys)


def _page(path: Path, document: Mapping[str, Any], name: str) -> Iterator[Finding]:
    shown = path.with_suffix(".html")
    if not shown.is_file():
        return
    if document["issuer"]["software"] != f"fedunlearn {__version__}":
        yield Finding(None, f"{name}: its page was written by {document['issuer']['software']}, not compared")
    elif shown.read_bytes() != page(document).encode():
        yield Finding(False, f"{name}: its page {shown.name} does not show this certificate")


def _against_trail(document: Mapping[str, Any], books: Mapping[str, Book], name: str) -> Finding:
    request, head = document["request"], document["trail"]
    book = books.get(document["run"]["federation"])
    entries = book.of_request.get(request["id"], []) if book else []
    if book is None or not entries:
        return Finding(False, f"{name}: the trail knows no request {request['id']}")
    if book.problems:
        return Finding(False, f"{name}: the trail that should bear it out is damaged")
    if book.hashes.get(head["entry"]) != head["hash"]:
        return Finding(False, f"{name}: the trail does not contain its head {head['entry']}:{head['hash']}")
    told, state = document["history"], document["outcome"]["state"]
    if told != history(entries) or state != entries[-1].to_state:
        return Finding(False, f"{name}: tells of request {request['id']} otherwise than the trail")
    if list(entries[0].clients or ()) != numbers_of(document):
        return Finding(False, f"{name}: names other clients than request {request['id']}")
    if tuple(book.records[request["id"]].parts) != parts_of(document):
        return Finding(False, f"{name}: names other parts of clients' data than request {request['id']}")
    return Finding(True, f"{name}: {state}, as the trail has it (head {head['entry']})")


def _against_weights(document: Mapping[str, Any], run: Path, name: str) -> Iterator[Finding]:
    if not (run / CHECKPOINTS).is_dir():
        return
    checkpoints = Checkpoints(run / CHECKPOINTS, document["run"]["federation"])
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
            yield Finding(
                False, f"{name}: the weights of round {round} ({which}) are other ones than it states"
            )
        else:
            yield Finding(True, f"{name}: the weights of round {round} ({which}) are those that it states")
