"""Things counted and listed in words: one thing is singular, the last of several stands behind an "and"."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return "1 voxel" or "1,204 voxels".

    Parameters
    ----------
    one
        What stands behind a 1, such as "file is".
    many
        What stands behind every other number, such as "files are". Default: ``one`` with an "s".
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def joined(words: Sequence[str]) -> str:
    """Return "a", "a and b", "a, b and c"; of nothing ""."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def some(words: Sequence[str], most: int) -> str:
    """Return "a, b", or where there are more than ``most`` "a, b and 1,204 more"."""
    more = len(words) - most
    return ", ".join(words[:most]) + (f" and {more:,} more" if more > 0 else "")


def clients(numbers: Iterable[int | str]) -> str:
    """Return "client 3", "clients 3 and 7", "clients 1, 3 and 7"."""
    words = [str(number) for number in numbers]
    return f"client{'s' * (len(words) > 1)} {joined(words)}"


def whose(
    whole: Sequence[int], parts: Iterable[tuple[str, int]], named: Callable[[Sequence[int]], str] = clients
) -> str:
    """Return whom it is about, and what of whose data: "client 3, class 2 of clients 0 and 1"; of nobody "".

    Parameters
    ----------
    whole
        Clients as a whole.
    parts
        Of each part of a client's data what it is, and the client's number.
    named
        What clients are called.
    """
    together: dict[str, list[int]] = {}
    for what, client in parts:
        together.setdefault(what, []).append(client)
    words = [f"{what} of {named(sorted(owners))}" for what, owners in together.items()]
    return joined([named(whole), *words] if whole else words)
