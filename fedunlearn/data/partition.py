"""Dealing training rows out to clients.

A partitioner is a pure function ``(labels, num_clients, rng, …settings) -> parts``: `labels` is int64, (n,);
the result has one sorted int64 array of row numbers per client and every row exactly once (at most once if
the partition is read from a file). A client left without data is an error: it could neither train nor be
forgotten.
"""

from collections.abc import Sequence

import numpy as np

from fedunlearn.data.source import Indices
from fedunlearn.errors import ConfigError

Parts = tuple[Indices, ...]


def iid(labels: Indices, num_clients: int, rng: np.random.Generator) -> Parts:
    """Rows at random, equally many per client."""
    parts = np.array_split(rng.permutation(len(labels)), num_clients)
    return hand_out(parts, f"federation.num-clients = {num_clients}", "lower it")


def dirichlet(labels: Indices, num_clients: int, rng: np.random.Generator, *, alpha: float) -> Parts:
    """Label skew: each class is spread over the clients in shares drawn from Dirichlet(data.alpha).

    Small `alpha` gives most of a class to few clients; large `alpha` tends to equal shares. Clients' sizes
    differ.

    Source: Hsu, Qi and Brown 2019 (arXiv 1909.06335), with the draw per class over clients as in PUF's code.
    """
    parts: list[list[Indices]] = [[] for _ in range(num_clients)]
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet([alpha] * num_clients)
        if not np.isclose(shares.sum(), 1):  # the sampler overflowed
            raise ConfigError(f"data.alpha = {alpha}: too large to draw from; 1e6 is as good as even")
        cuts = (np.cumsum(shares)[:-1] * len(rows)).astype(int)
        for part, piece in zip(parts, np.split(rows, cuts), strict=True):
            part.append(piece)
    return hand_out(
        [np.concatenate(part) for part in parts],
        f"data.alpha = {alpha}",
        "raise it, lower federation.num-clients or take another seed",
    )


def pathological(
    labels: Indices, num_clients: int, rng: np.random.Generator, *, classes_per_client: int
) -> Parts:
    """Each client holds data.classes-per-client classes, each class equally many clients (± 1).

    A class's rows are shared equally by the clients that hold it.
    """
    classes = np.unique(labels)
    setting = f"data.classes-per-client = {classes_per_client}"
    if classes_per_client > len(classes):
        raise ConfigError(f"{setting}: there are only {len(classes)} classes; lower it")
    if classes_per_client * num_clients < len(classes):
        raise ConfigError(
            f"{setting}: {num_clients} clients cannot cover {len(classes)} classes; "
            "raise it or federation.num-clients"
        )
    holders: list[list[int]] = [[] for _ in classes]
    for client in range(num_clients):
        # Taking the classes with fewest holders so far keeps the numbers of holders within one of each other;
        # the random order breaks ties, so that the classes which meet in a client vary.
        order = rng.permutation(len(classes))
        fewest_first = order[np.argsort([len(holders[index]) for index in order], kind="stable")]
        for index in fewest_first[:classes_per_client]:
            holders[index].append(client)
    parts: list[list[Indices]] = [[] for _ in range(num_clients)]
    for label, clients in zip(classes, holders, strict=True):
        pieces = np.array_split(rng.permutation(np.flatnonzero(labels == label)), len(clients))
        for client, piece in zip(clients, pieces, strict=True):
            parts[client].append(piece)
    return hand_out([np.concatenate(part) for part in parts], setting, "lower federation.num-clients")


def shards(labels: Indices, num_clients: int, rng: np.random.Generator, *, shards_per_client: int) -> Parts:
    """Rows sorted by label, cut into equal shards, data.shards-per-client of them dealt to each client.

    Source: McMahan et al. 2017 (arXiv 1602.05629), where each of 100 clients gets 2 of 200 shards.
    """
    num_shards = num_clients * shards_per_client
    pieces = np.array_split(np.argsort(labels, kind="stable"), num_shards)
    hands = np.array_split(rng.permutation(num_shards), num_clients)
    parts = [np.concatenate([pieces[shard] for shard in hand]) for hand in hands]
    return hand_out(
        parts, f"data.shards-per-client = {shards_per_client}", "lower it or federation.num-clients"
    )


def hand_out(parts: Sequence[Indices], setting: str, remedy: str) -> Parts:
    """Sort every client's rows, and refuse a partition that leaves a client with none.

    Parameters
    ----------
    parts : sequence of ndarray
        One array of row numbers per client, in any order.
    setting, remedy : str
        What to name, and what to advise, should a client have no data.
    """
    for client, rows in enumerate(parts):
        if len(rows) == 0:
            raise ConfigError(f"{setting}: leaves client {client} (of {len(parts)}) without data; {remedy}")
    return tuple(np.sort(rows).astype(np.int64) for rows in parts)
