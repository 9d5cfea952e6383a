"""How a certificate calls whom it is about: clients, and parts of clients' data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedunlearn.parts import Part
from fedunlearn.plurals import whose


def named(clients: Sequence[int], parts: Iterable[Part] = (), *, start: bool = False) -> str:
    """Return "client 3", "clients 3 and 7", "clients 1, 3 and 7"; capitalised at the start of a sentence.

    Numbers of parts are called by what they are: "50 % of the samples of client 3", "class 2 of clients 3 and 7".
    """
    known = {part.number: part for part in parts}
    whole = [client for client in clients if client not in known]
    text = whose(whole, ((str(known[n]), known[n].client) for n in clients if n in known))
    return text[:1].upper() + text[1:] if start else text


def parts_of(document: Mapping[str, Any]) -> tuple[Part, ...]:
    """Return the parts of clients' data that a certificate is about; none where it is about whole clients."""
    return tuple(map(Part.from_dict, document["request"].get("parts", ())))


def numbers_of(document: Mapping[str, Any]) -> list[int]:
    """Return the numbers that a certificate's request has in the trail: of clients, or of parts of their data."""
    parts = parts_of(document)
    return sorted(part.number for part in parts) if parts else list(document["request"]["clients"])
