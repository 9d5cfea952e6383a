"""Signed heads and seals against the trail, the plans and the settings: who signed, and what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fedunlearn.certificates.findings import Book, Finding
from fedunlearn.certificates.issuer import signed_head_document
from fedunlearn.certificates.keys import PublicKey
from fedunlearn.certificates.seals import EXPERIMENT, Seal, file_digest
from fedunlearn.certificates.signing import HEAD, SEAL, verifies
from fedunlearn.plurals import counted
from fedunlearn.requests.chain import Head
from fedunlearn.requests.records import LIVE_BRANCH

_FIELDS = {"federation", "round", "complete", "checkpoint", "plan", "settings", "history", "head", "at"}


def heads(book: Book, public_keys: Sequence[PublicKey], carried: Sequence[PublicKey]) -> Iterator[Finding]:
    """Check the signatures of a federation's heads.

    Parameters
    ----------
    public_keys
        Those that are trusted.
    carried
        Where there are none: those that certificates carry. They show that nothing was changed, not who signed.
    """
    name = f"signed heads of {book.branch}"
    if not book.signed:
        if public_keys:
            words = f"there are none; nothing shows that {named(public_keys)} signed this trail"
            yield Finding(False, f"{name}: {words}")
        else:
            yield Finding(None, f"{name}: there are none")
        return
    found = []
    for signed in book.signed:
        document = signed_head_document(book.branch, signed.head, signed.at)
        found.append((f"that of entry {signed.entry}", _signer(HEAD, document, signed, public_keys, carried)))
    last = book.signed[-1].entry
    beyond = max(book.hashes, default=0) - last
    later = f"; {counted(beyond, 'later entry is', 'later entries are')} not signed" if beyond else ""
    yield from _signatures(name, found, public_keys, f"{len(found)}, the last of entry {last}{later}")


def seals(
    run: Path, book: Book, public_keys: Sequence[PublicKey], carried: Sequence[PublicKey]
) -> Iterator[Finding]:
    """Check the seals of a federation: their signatures, and all that they state but the checkpoints."""
    name = f"seals of {book.branch}"
    if not book.seals:
        if book.branch == LIVE_BRANCH and book.last_saved:
            yield Finding(False if public_keys else None, f"{name}: there are none")
        return
    found = []
    for seal in book.seals:
        if why := _problem(seal, book):
            yield Finding(False, f"{name}: that of round {seal.round} {why}")
            return
        found.append(
            (f"that of round {seal.round}", _signer(SEAL, seal.document, seal, public_keys, carried))
        )
    sealed = {seal.round for seal in book.seals}
    if missing := [
        plan.round for plan in book.plans if plan.round <= book.last_saved and plan.round not in sealed
    ]:
        yield Finding(False, f"{name}: there is none of round {', '.join(map(str, missing))}")
    yield from _settings(run, book, name)
    yield from _signatures(
        name, found, public_keys, f"{len(found)}, the last of round {book.seals[-1].round}"
    )


def named(keys: Sequence[PublicKey]) -> str:
    """Return how a line calls the keys that were named."""
    return " or ".join(f"key {key.key_id}" for key in keys)


def _signer(
    kind: str, document: Any, signed: Any, public_keys: Sequence[PublicKey], carried: Sequence[PublicKey]
) -> bool | None:
    """Whether one of the keys signed this; None where no key is known that could have."""
    if signed.signature is None:
        return False if public_keys else None
    keys = [key for key in public_keys or carried if key.key_id == signed.key_id]
    if not keys:
        return False if public_keys else None
    return any(verifies(kind, document, signed.signature, key) for key in keys)


def _signatures(
    name: str, found: Sequence[tuple[str, bool | None]], public_keys: Sequence[PublicKey], summary: str
) -> Iterator[Finding]:
    for which, holds in found:
        if holds is False:
            by = named(public_keys) if public_keys else "the key that certificates carry"
            yield Finding(False, f"{name}: {which} is not signed by {by}")
    if all(holds for _, holds in found):
        words = "" if public_keys else "; only --public-key shows whose key that is"
        yield Finding(True, f"{name}: {summary}{words}")
    elif any(holds is None for _, holds in found):
        yield Finding(None, f"{name}: {summary}; name a public key to check their signatures")


def _problem(seal: Seal, book: Book) -> str | None:
    """Return what is wrong with what a seal states, or None."""
    stated = seal.document
    if stated.keys() != _FIELDS or stated["round"] != seal.round or stated["federation"] != book.branch:
        return "is not one of this round and federation"
    if type(stated["complete"]) is not bool or type(stated["at"]) is not float:
        return "contains what fedunlearn never writes"
    for name in ("checkpoint", "plan", "settings", "head"):
        if not isinstance(stated[name], str | None):
            return "contains what fedunlearn never writes"
    history = stated["history"]
    if not isinstance(history, dict) or not all(isinstance(digest, str) for digest in history.values()):
        return "contains what fedunlearn never writes"
    if stated["head"] is not None and not book.has(_head(stated["head"])):
        return f"names head {stated['head']}, which the trail does not contain"
    # The failures of a round that is executed again may be others; then it is sealed again.
    if stated["complete"] and stated["plan"] != book.plan_digests.get(seal.round):
        return "belongs to another plan of that round, or to other failures in it"
    return None


def _head(text: str) -> Head:
    entry, _, digest = text.partition(":")
    return Head(int(entry) if entry.isascii() and entry.isdigit() else 0, digest)


def _settings(run: Path, book: Book, name: str) -> Iterator[Finding]:
    newest = next((seal for seal in reversed(book.seals) if seal.document["complete"]), None)
    if newest is None or newest.document["settings"] is None:
        return
    path = run / EXPERIMENT
    if not path.is_file():
        yield Finding(False, f"{name}: {EXPERIMENT}, with which round {newest.round} was run, is missing")
    elif file_digest(path) != newest.document["settings"]:
        yield Finding(False, f"{name}: {EXPERIMENT} is not the one with which round {newest.round} was run")
    else:
        yield Finding(True, f"{name}: {EXPERIMENT} is the one with which round {newest.round} was run")
