"""Signed heads in the file: what somebody with a key has vouched for, as far as this file tells."""

from fedunlearn.requests.chain import SignedHead
from fedunlearn.requests.store import Store
from fedunlearn.requests.transitions import LedgerError


def add(store: Store, branch: str, signed: SignedHead) -> None:
    """Keep a signed head, inside the caller's transaction; the same entry again under the same key changes nothing.

    Raises
    ------
    LedgerError
        The trail does not contain it.
    """
    row = store.row("SELECT hash FROM audit WHERE branch = ? AND entry = ?", branch, signed.entry)
    if row is None or row["hash"] != signed.hash:
        raise LedgerError(f"signed head {signed.head}: is not in the trail of branch {branch!r}")
    store.rows(
        "INSERT OR IGNORE INTO heads (branch, entry, key_id, hash, at, signature) VALUES (?, ?, ?, ?, ?, ?)",
        *(branch, signed.entry, signed.key_id, signed.hash, signed.at, signed.signature),
    )


def read(store: Store, branch: str) -> list[SignedHead]:
    """Return a branch's signed heads by entry."""
    rows = store.rows("SELECT * FROM heads WHERE branch = ? ORDER BY entry, key_id", branch)
    return [SignedHead(r["entry"], r["hash"], r["at"], r["key_id"], r["signature"]) for r in rows]
