"""Images that are there more than once: at several clients, in several splits, on both sides of what is forgotten.

A copy with a client that stays is trained on after the forgetting, and a copy in the test set is what the forgotten
one is measured against. Neither is refused: it is counted, for what it does to a measurement has to be known. Copies
are found by their pixels, equal to the last bit: what was cropped, recoloured or compressed anew is another image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fedunlearn.data.federated import FederatedData
from fedunlearn.data.source import Indices

LISTED = 20
"""So many sets of clients are listed whose images lie elsewhere too, those with most first."""
NAMED = 5
"""So many clients of a set are named."""


def count_duplicates(data: FederatedData, together: Iterable[tuple[int, ...]] = ()) -> dict[str, Any]:
    """Count images that occur more than once, as plain JSON types.

    Parameters
    ----------
    data : FederatedData
    together : iterable of tuple of int
        Sets of clients, and of parts of their data, that are forgotten together.

    Returns
    -------
    dict
        ``train``: training images that occur more than once among these; ``clients``: those of them that several
        clients hold; ``labels``: those whose copies bear another label. ``validation``, ``test``: images of these
        that are training images too. ``border``: of sets forgotten together those of whose images others keep a
        copy, as ``clients`` (numbers), ``forgotten`` and ``retained`` (images of the set that stay elsewhere, and
        those that they equal), ``validation`` and ``test`` (images there that equal one of the set), with ``what`` it
        is in words; at most ``LISTED``, of ``borders`` in all.
    """
    held = data.clients.rows  # what no client holds is not trained on
    numbers = {**data.content_numbers, "train": data.content_numbers["train"][: len(held)]}
    _, group, size = np.unique(numbers["train"], return_inverse=True, return_counts=True)
    found: dict[str, Any] = {
        "train": int((size[group] > 1).sum()),
        "clients": _mixed(group, data.clients.owners),
    }
    if data.task == "classification":
        found["labels"] = _mixed(group, data.train_labels.cpu().numpy()[: len(held)])
    found |= {split: _shared(numbers[split], numbers["train"]) for split in ("validation", "test")}
    copied = _copied(numbers)
    borders = [_border(data, numbers, copied, clients) for clients in sorted(set(together)) if clients]
    borders = [border for border in borders if border["retained"] or border["validation"] or border["test"]]
    borders.sort(key=lambda border: -border["forgotten"])
    return found | {"borders": len(borders), "border": borders[:LISTED]}


def _copied(numbers: Mapping[str, Indices]) -> npt.NDArray[np.bool_]:
    """Return of each training image whether there is another like it in any split."""
    _, group, size = np.unique(
        np.concatenate([numbers["train"], numbers["validation"], numbers["test"]]),
        return_inverse=True,
        return_counts=True,
    )
    found: npt.NDArray[np.bool_] = size[group[: len(numbers["train"])]] > 1
    return found


def _mixed(group: Indices, values: Indices) -> int:
    """Return how many members the groups have in which more than one value occurs."""
    least = np.full(group.max(initial=-1) + 1, np.iinfo(np.int64).max)
    most = np.full(len(least), np.iinfo(np.int64).min)
    np.minimum.at(least, group, values)
    np.maximum.at(most, group, values)
    return int((least < most)[group].sum())


def _border(
    data: FederatedData,
    numbers: Mapping[str, Indices],
    copied: npt.NDArray[np.bool_],
    clients: tuple[int, ...],
) -> dict[str, Any]:
    # Most sets hold no copy of anything: only those that do are held against all the others.
    rows = data.indices_of(clients)
    forgotten = numbers["train"][rows[copied[rows]]]
    retained = numbers["train"][data.all_but(clients)] if len(forgotten) else forgotten
    return {
        "clients": list(clients),
        "what": _what(data, clients),
        "forgotten": _shared(forgotten, retained),
        "retained": _shared(retained, forgotten),
        **{split: _shared(numbers[split], forgotten) for split in ("validation", "test")},
    }


def _what(data: FederatedData, clients: tuple[int, ...]) -> str:
    """Say what a set consists of: ``client 0``, ``client 3, class 2``, ``HK``; of many the first ones."""

    def name(number: int) -> str:
        owner = data.parts.owner(number)
        client = data.client_names[owner] if data.client_names else f"client {owner}"
        return f"{client}, {data.parts[number]}" if number in data.parts else client

    more = len(clients) - NAMED
    return " and ".join(map(name, clients[:NAMED])) + (f" and {more:,} more" if more > 0 else "")


def _shared(some: Indices, others: Indices) -> int:
    return int(np.isin(some, others).sum())


def in_words(counted: Mapping[str, Any], samples: str = "images", borders: int = LISTED) -> list[str]:
    """Return what was counted as lines for people; none where nothing occurs twice.

    Parameters
    ----------
    counted : mapping
        What :func:`count_duplicates` returns.
    samples : str
        What the rows are: "images" or "slices".
    borders : int
        So many sets that are forgotten have a line each.
    """
    lines = []
    if counted["train"]:
        labels = f", {counted['labels']:,} under several labels" if counted.get("labels") else ""
        lines.append(
            f"of the training {samples} {counted['train']:,} occur more than once, {counted['clients']:,} of these "
            f"with several clients{labels}"
        )
    for split in ("validation", "test"):
        if counted[split]:
            lines.append(f"of the {split} {samples} {counted[split]:,} are also training {samples}")
    listed = counted["border"][:borders]
    lines += [_border_in_words(border, samples) for border in listed]
    if more := counted["borders"] - len(listed):
        lines.append(
            f"forgetting leaves copies of {more:,} more target{'s' if more > 1 else ''}, fewer for each"
        )
    return lines


def _border_in_words(border: Mapping[str, Any], samples: str) -> str:
    copies = [
        f"{border[key]:,} {where}"
        for key, where in (
            ("retained", "in the retained data"),
            ("validation", "in validation"),
            ("test", "in the test set"),
        )
        if border[key]
    ]
    return f"forgetting {border['what']} leaves copies of its {samples}: {', '.join(copies)}"
