"""Who holds what, for people: a seed's entry in ``partition.json``, small however many clients there are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fedunlearn.data.duplicates import count_duplicates, in_words
from fedunlearn.data.federated import FederatedData
from fedunlearn.data.source import Indices

LISTED = 1000
"""Up to so many clients every one is listed; of more, so many."""


def holdings(data: FederatedData, together: Iterable[tuple[int, ...]] = ()) -> dict[str, Any]:
    """Return how many training rows of each class clients hold, as plain JSON types.

    Parameters
    ----------
    data
    together
        Sets of clients, and of parts of clients' data, that are forgotten together: their clients must be among those
        listed, as far as there is room.

    Returns
    -------
    dict
        ``classes``: their names. ``num_clients``: all there are. ``clients``: the numbers of those listed: all,
        or above ``LISTED`` those forgotten and others at even distances. ``counts``: of each of them its rows per
        class. ``sizes`` (rows of a client) and ``classes_held`` (classes of a client): ``least``, ``median``,
        ``most`` and ``total`` over *all* clients. Masks are counted as of one class, "slices". ``duplicates``: see
        :func:`~fedunlearn.data.duplicates.count_duplicates`. Where there is something to say: ``copies``, the
        duplicates in words; ``client_names`` of those listed; ``origin`` of data that are not real; ``notes`` of what
        was left out.
    """
    together = set(together)
    forgotten = sorted({number for numbers in together for number in numbers})
    listed = listed_clients(len(data.clients), map(data.parts.owner, forgotten))
    held: dict[str, Any] = {
        "classes": list(data.class_names) if data.task == "classification" else ["slices"],
        "num_clients": len(data.clients),
        "clients": listed,
        "counts": data.counts(listed).tolist(),
        "sizes": _spread(data.clients.sizes),
        "classes_held": _spread(_classes_held(data)),
        "duplicates": count_duplicates(data, together),
    }
    if copies := in_words(held["duplicates"], "slices" if data.task == "segmentation" else "images"):
        held["copies"] = copies
    if data.client_names:
        held["client_names"] = [data.client_names[client] for client in listed]
    if data.origin:
        held["origin"] = data.origin
    if parts := sorted(number for number in forgotten if number in data.parts):
        held["parts"] = {
            str(number): {
                **data.parts[number].to_dict(),
                "size": len(data.indices_of([number])),
                "what": str(data.parts[number]),
            }
            for number in parts
        }
    if data.notes:
        held["notes"] = list(data.notes)
    return held


def listed_clients(num_clients: int, forgotten: Iterable[int]) -> list[int]:
    """Return which clients to list, ascending: all of few, of many the forgotten and others at even distances."""
    if num_clients <= LISTED:
        return list(range(num_clients))
    chosen = dict.fromkeys(sorted(set(forgotten))[:LISTED])
    for client in np.linspace(0, num_clients - 1, LISTED).astype(np.int64).tolist():
        if len(chosen) == LISTED:
            break
        chosen[client] = None
    return sorted(chosen)


def _classes_held(data: FederatedData) -> Indices:
    """Return how many classes each client holds, int64, (clients,)."""
    if data.task == "segmentation":
        return (data.clients.sizes > 0).astype(np.int64)
    labels = data.train_labels.cpu().numpy()[data.clients.rows]
    # One entry per client and class that it holds; a table of all clients and classes could be larger than the data.
    cells = np.unique(data.clients.owners * data.num_classes + labels)
    return np.bincount(cells // data.num_classes, minlength=len(data.clients)).astype(np.int64, copy=False)


def _spread(values: np.ndarray[Any, np.dtype[np.integer[Any]]]) -> dict[str, float]:
    return {
        "least": int(values.min()),
        "median": float(np.median(values)),
        "most": int(values.max()),
        "total": int(values.sum()),
    }
