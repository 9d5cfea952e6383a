"""Values from anywhere, as a line of a log or of the ledger may show them."""

import reprlib


class _Repr(reprlib.Repr):
    """Python's own, of which a number of thousands of digits cannot be written at all."""

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if abs(x) < 10**40 else "a number of more than 40 digits"


_REPR = _Repr()
_REPR.maxstring = _REPR.maxother = 120


def shown(value: object) -> str:
    """Return a value as Python writes it, in printable characters, and short however long it is."""
    return printable(_REPR.repr(value))


def printable(text: str) -> str:
    """Return a text with a question mark for what would move a terminal's cursor or change its colours."""
    return "".join(c if c.isprintable() else "?" for c in text)
