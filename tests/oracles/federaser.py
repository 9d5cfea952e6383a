"""FedEraser (Liu et al., IWQoS 2021), the plain way: client after client, number after number, in Python's floats.

It shares no line with the implementation. A run is told in rounds: averaging, in which every ``interval``-th round's
updates are written down; and after a request a replay of what was written down, one entry a round:

    first entry:   w ← w_0 + Σ p_k Δ_k            over those still there, nobody trains
    later entries: w ← w + Σ p_k ‖Δ_k‖/‖Δ̂_k‖ Δ̂_k   with Δ̂_k trained from w now

and what was added takes the place of what was written down.
"""

from math import fsum, sqrt

from tests.oracles.puf_in_one_file import sample


def length(numbers):
    return sqrt(fsum(x * x for x in numbers))


def uniform_mean(rows):
    return [fsum(column) / len(rows) for column in zip(*rows, strict=True)]


def weighted_mean(rows, weights):
    return [
        fsum(n * x for n, x in zip(weights, column, strict=True)) / sum(weights)
        for column in zip(*rows, strict=True)
    ]


def stretched(fresh, old, new):
    """Return `fresh`, so much longer as `old` is longer than `new`."""
    if length(new) == 0:
        return [0.0 for _ in fresh]
    return [x * length(old) / length(new) for x in fresh]


def calibrated(stored, fresh, how, layers):
    """Return the stretched updates of all clients; `layers` are (start, stop)."""
    if how == "client":
        return [stretched(f, s, f) for s, f in zip(stored, fresh, strict=True)]
    found = [[] for _ in fresh]
    for start, stop in layers:
        s_rows, f_rows = ([row[start:stop] for row in rows] for rows in (stored, fresh))
        for k, f_row in enumerate(f_rows):
            old, new = s_rows[k], f_row
            if how == "average-layer":
                old, new = uniform_mean(s_rows), uniform_mean(f_rows)
            found[k] += stretched(f_row, old, new)
    return found


def run(start, rounds, requests, *, train, examples, num_clients, slots, seed, how, layers, interval=1):
    """Return the weights after rounds 0, 1, …, each a list of floats, and what is written down at the end.

    Parameters
    ----------
    requests
        (round, clients): asked after this round.
    train
        (w, round, client) → the update of a client, a list.
    examples
        client → n_k
    """
    trajectory, written, gone, waiting, t = [list(start)], {}, set(), sorted(requests), 0

    def step(w, rows, weights):
        return [a + b for a, b in zip(w, weighted_mean(rows, weights), strict=True)] if rows else list(w)

    while t < rounds:
        w = trajectory[-1]
        due = [clients for at, clients in waiting if at < t + 1]
        if not due:
            t += 1
            clients = sample(seed, t, [k for k in range(num_clients) if k not in gone], slots)
            updates = {k: train(w, t, k) for k in clients}
            if (t - 1) % interval == 0:
                written[t] = dict(updates)
            trajectory.append(step(w, list(updates.values()), [examples(k) for k in updates]))
            continue
        waiting = [(at, clients) for at, clients in waiting if at >= t + 1]
        gone = gone.union(*due)
        entries = [at for at in sorted(written) if set(written[at]) - gone]
        if not entries:
            t += 1
            trajectory.append(list(start))
        for number, at in enumerate(entries):
            if t == rounds:
                break
            t += 1
            if number == 0:
                left = [k for k in sorted(written[at]) if k not in gone]
                rows = [written[at][k] for k in left]
                trajectory.append(step(start, rows, [examples(k) for k in left]))
                continue
            w = trajectory[-1]
            away = gone.union(*(clients for asked, clients in waiting if asked < t))
            left = [k for k in sorted(written[at]) if k not in away]
            found = calibrated([written[at][k] for k in left], [train(w, t, k) for k in left], how, layers)
            written[at].update(zip(left, found, strict=True))
            weights = [1 if how == "average-layer" else examples(k) for k in left]
            trajectory.append(step(w, found, weights))
    return trajectory, written
