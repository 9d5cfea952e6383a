"""``fedunlearn verify``: whether certificates, signed heads, the trail and checkpoints still bear each other out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from fedunlearn import config
from fedunlearn.certificates import (
    certificate,
    checked_certificate,
    checked_checkpoints,
    checked_history,
    checked_seals,
    checked_tables,
    not_covered,
)
from fedunlearn.certificates.checked_certificate import Surroundings
from fedunlearn.certificates.findings import LEDGER, Book, Finding, books
from fedunlearn.certificates.findings_in_words import folded
from fedunlearn.certificates.keys import PublicKey
from fedunlearn.certificates.missing import missing_certificates, missing_entries
from fedunlearn.certificates.retention import CERTIFICATES
from fedunlearn.certificates.seals import EXPERIMENT
from fedunlearn.config import Experiment
from fedunlearn.errors import UserError
from fedunlearn.plurals import counted
from fedunlearn.requests.chain import Head
from fedunlearn.requests.ledger import Ledger
from fedunlearn.requests.records import LIVE_BRANCH
from fedunlearn.text_files import resolved

__all__ = ["Finding", "verify"]


def verify(path: Path, *, public_keys: Sequence[PublicKey] = (), heads: Sequence[Head] = ()) -> list[Finding]:
    """Check a run directory, or one certificate (with its run directory, where it still lies in one).

    Nothing is written. The last findings name what no check looks at.

    Parameters
    ----------
    public_keys
        The keys that signatures must be of, from a place that is trusted. None given: certificates are checked with
        the key that each carries, which shows that nothing was changed since, but not who signed.
    heads
        Heads that were kept elsewhere, such as a receipt's: the trail must contain them.

    Raises
    ------
    UserError
        There is neither a run directory nor a certificate at this path.
    """
    if path.is_dir():
        if not (path / LEDGER).is_file():
            raise UserError(f"{path}: holds no {LEDGER}; name a run directory or a certificate")
        return list(_run(path, public_keys, heads))
    run = resolved(path).parent.parent
    if resolved(path).parent.name != CERTIFICATES or not (run / LEDGER).is_file():
        if heads:
            raise UserError(f"{path}: is not in a run directory, so no trail can be searched for the head")
        return list(checked_certificate.check(path, public_keys, None))
    surroundings = Surroundings(run, books(run), _experiment(run))
    return [*_heads(surroundings, heads), *_one(path, public_keys, surroundings)]


def _run(run: Path, public_keys: Sequence[PublicKey], heads: Sequence[Head]) -> Iterator[Finding]:
    surroundings = Surroundings(run, books(run), _experiment(run))
    known, certified = surroundings.books, certificate.issued(run)
    keyed = bool(public_keys)
    carried = () if keyed else _carried(run)
    if not known:
        yield Finding(False if keyed else None, "ledger: has no federation, neither requests nor plans")
    with Ledger(run / LEDGER, read_only=True) as ledger:
        yield from (Finding(False, f"ledger: {problem}") for problem in checked_tables.strangers(ledger))
    yield from _heads(surroundings, heads)

    def of_book(book: Book) -> Iterator[Finding]:
        for problem in book.problems:
            yield Finding(False, f"trail of {book.branch}: {problem}")
        yield from missing_entries(book)
        if book.entries and not book.problems:
            words = f"{counted(len(book.entries), 'entry', 'entries')}, each follows from the previous ones"
            yield Finding(True, f"trail of {book.branch}: {words}")
        yield from checked_seals.heads(book, public_keys, carried)
        yield from checked_seals.seals(run, book, public_keys, carried)
        yield from missing_certificates(run, book, certified, keyed=keyed)
        yield from checked_checkpoints.checkpoints(run, book)
        yield from checked_history.history(run, book)
        yield from checked_checkpoints.retained(run, book, certified)

    yield from folded({branch: of_book(book) for branch, book in known.items()})
    for path in sorted((run / CERTIFICATES).glob("*.json")):
        yield from _one(path, public_keys, surroundings)
    yield from not_covered.listed(run, surroundings, public_keys, heads)


def _one(path: Path, public_keys: Sequence[PublicKey], surroundings: Surroundings) -> Iterator[Finding]:
    try:
        yield from checked_certificate.check(path, public_keys, surroundings)
    except UserError as error:
        yield Finding(False, str(error))


def _heads(surroundings: Surroundings, heads: Sequence[Head]) -> Iterator[Finding]:
    """Look for the heads that were kept elsewhere: in the live federation's trail, or in the only one."""
    known = surroundings.books
    book = known.get(LIVE_BRANCH) or (next(iter(known.values())) if len(known) == 1 else None)
    if heads and book is None and len(known) > 1:
        raise UserError(f"--head {heads[0]}: belongs to one trail, but this run has {len(known)}")
    for head in heads:
        if book is None or not book.has(head):
            words = "the trail does not contain it; earlier entries were changed or cut off, or it is of another run"
            yield Finding(False, f"head {head}: {words}")
        else:
            yield Finding(True, f"head {head}: the trail contains it")


def _experiment(run: Path) -> Experiment | None:
    try:
        return config.load(run / EXPERIMENT)
    except UserError:
        return None


def _carried(run: Path) -> list[PublicKey]:
    """Return the keys that the run's certificates carry."""
    found: dict[str, PublicKey] = {}
    for path in sorted((run / CERTIFICATES).glob("*.json")):
        try:
            key = PublicKey.from_text(certificate.read(path)["issuer"]["public_key"])
        except (UserError, ValueError, TypeError):
            continue
        found[key.key_id] = key
    return list(found.values())
