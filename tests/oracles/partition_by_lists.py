"""Dealing rows to clients by lists of lists, one client and one row at a time.

Draws from the generator in the same order as :mod:`fedunlearn.data.partitioners`, and shares nothing else with it.
A client may be left without data here; the result is a list of rows per client, ascending.
"""

import numpy as np


def iid(labels, num_clients, rng):
    return _sorted(_cut_evenly(rng.permutation(len(labels)).tolist(), num_clients))


def dirichlet(labels, num_clients, rng, *, alpha):
    hands = [[] for _ in range(num_clients)]
    for label in sorted(set(labels.tolist())):
        rows = rng.permutation([row for row, other in enumerate(labels) if other == label]).tolist()
        up_to, begin = np.cumsum(rng.dirichlet([alpha] * num_clients)), 0
        for client, hand in enumerate(hands):
            end = len(rows) if client == num_clients - 1 else int(up_to[client] * len(rows))
            hand += rows[begin:end]
            begin = end
    return _sorted(hands)


def pathological(labels, num_clients, rng, *, classes_per_client):
    classes = sorted(set(labels.tolist()))
    holders = [[] for _ in classes]
    for client in range(num_clients):
        order = rng.permutation(len(classes)).tolist()
        for _ in range(classes_per_client):
            # min() takes the first of equals: the random order decides among the least held.
            chosen = min(order, key=lambda place: len(holders[place]))
            order.remove(chosen)
            holders[chosen].append(client)
    hands = [[] for _ in range(num_clients)]
    for label, clients in zip(classes, holders, strict=True):
        rows = rng.permutation([row for row, other in enumerate(labels) if other == label]).tolist()
        for client, piece in zip(clients, _cut_evenly(rows, len(clients)), strict=True):
            hands[client] += piece
    return _sorted(hands)


def shards(labels, num_clients, rng, *, shards_per_client):
    by_label = sorted(range(len(labels)), key=lambda row: labels[row])
    pieces = _cut_evenly(by_label, num_clients * shards_per_client)
    dealt = _cut_evenly(rng.permutation(len(pieces)).tolist(), num_clients)
    return _sorted([[row for shard in hand for row in pieces[shard]] for hand in dealt])


def from_file(lists, source_rows):
    """`lists` hold rows of the whole source; `source_rows` are those that are trained on."""
    place = {row: index for index, row in enumerate(source_rows)}
    return _sorted([[place[row] for row in rows if row in place] for rows in lists])


def _cut_evenly(rows, parts):
    """Consecutive pieces; the first ones are one longer where it does not come out even."""
    least, larger = divmod(len(rows), parts)
    pieces, begin = [], 0
    for part in range(parts):
        end = begin + least + (part < larger)
        pieces.append(rows[begin:end])
        begin = end
    return pieces


def _sorted(hands):
    return [sorted(hand) for hand in hands]
