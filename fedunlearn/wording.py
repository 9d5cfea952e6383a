"""How a certificate calls whom it is about: clients, and parts of clients' data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedunlearn.parts import Part


def named(clients: Sequence[int], parts: Iterable[Part] = (), *, start: bool = False) -> str:
    """Return "client 3", "clients 3 and 7", "clients 1, 3 and 7"; capitalised at the start of a sentence.

    Numbers of parts are called by what they are: "50 % of the samples of client 3", "class 2 of clients 3 and 7".
    """
    known = {part.number: part for part in parts}
    whole = [client for client in clients if client not in known]
    together: dict[str, list[int]] = {}
    for number in clients:
        if number in known:
            together.setdefault(str(known[number]), []).append(known[number].client)
    words = [_clients(whole)] if whole else []
    words += [f"{what} of {_clients(sorted(owners))}" for what, owners in together.items()]
    text = listed(words)
    return text[:1].upper() + text[1:] if start else text


def _clients(clients: Sequence[int]) -> str:
    return f"client{'s' * (len(clients) > 1)} {listed([str(client) for client in clients])}"


def listed(names: Sequence[str]) -> str:
    """Return "a", "a and b", "a, b and c"; "none" of nothing."""
    if not names:
        return "none"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def parts_of(document: Mapping[str, Any]) -> tuple[Part, ...]:
    """Return the parts of clients' data that a certificate is about; none where it is about whole clients."""
    return tuple(map(Part.from_dict, document["request"].get("parts", ())))


def numbers_of(document: Mapping[str, Any]) -> list[int]:
    """Return the numbers that a certificate's request has in the trail: of clients, or of parts of their data."""
    parts = parts_of(document)
    return sorted(part.number for part in parts) if parts else list(document["request"]["clients"])
