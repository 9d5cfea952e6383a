"""PGA (Halimi et al., arXiv 2207.05521), the plain way, on softmax regression: every gradient written out.

It shares no line with the implementation. Weights are one row of a matrix and a bias per class; `flat` puts them in
the order of a model's parameters. One client after the other, one batch after the other:

    average as ever → w_ref = (N·w − Σ n_u w_u) / (N − Σ n_u) → climb at each u, from there → average → average on
"""

import math

import numpy as np
import torch

from tests.oracles.puf_in_one_file import derive_seed, sample


def gradient(w, x, y, classes):
    """Return the gradient of the mean cross-entropy, flat: of the matrix (classes, features), then of the bias."""
    matrix, bias = w[:-classes].reshape(classes, -1), w[-classes:]
    logits = x @ matrix.T + bias
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    error = (p - np.eye(classes)[y]) / len(y)
    return np.concatenate([(error.T @ x).reshape(-1), error.sum(axis=0)])


def batches(count, size, epochs, seed):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(count, generator=generator).numpy()
        yield from (order[start : start + size] for start in range(0, count, size))


def trained(w, x, y, classes, *, lr, size, epochs, seed):
    for rows in batches(len(y), size, epochs, seed):
        w = w - lr * gradient(w, x[rows], y[rows], classes)
    return w


def distance(a, b):
    return math.sqrt(math.fsum((a - b) ** 2))


def put_back(w, centre, radius):
    """Return w, or where it is outside of the ball the point of the sphere in its direction."""
    far = distance(w, centre)
    return centre + (w - centre) * radius / far if far > radius else w


def climbed(w_ref, w_u, x, y, classes, *, lr, momentum, clip, size, epochs, radius, tau, seed):
    """Return where each step of the ascent ends."""
    path, w, velocity = [], w_ref, np.zeros_like(w_ref)
    for rows in batches(len(y), size, epochs, seed):
        g = -gradient(w, x[rows], y[rows], classes)
        g = g * min(1.0, clip / (distance(g, 0) + 1e-6))
        velocity = momentum * velocity + g
        w = put_back(w - lr * velocity, w_ref, radius)
        path.append(w)
        if distance(w, w_u) > tau:
            break
    return path


def authors_radius(w_ref, initial):
    """Return √δ; δ is a third of the mean *squared* distance."""
    return math.sqrt(sum(distance(w_ref, w) ** 2 for w in initial) / len(initial) / 3)


def run(
    start,
    data,
    *,
    classes,
    rounds,
    requests,
    slots,
    seed,
    initial,
    train,
    ascent,
    radius=None,
    stop=2.0,
    stop_at=None,
    excluded=(),
):
    """Return the weights after rounds 0, 1, …, and of each request what its ascents were like.

    Parameters
    ----------
    data
        A pair (x, y) for each client, of floats and integers.
    requests
        Round → clients that are forgotten in the one after it.
    train, ascent
        Keywords of :func:`trained` and :func:`climbed`.
    """
    trajectory, last, gone, told = [start], {}, set(excluded), []
    for t in range(1, rounds + 1):
        w, forget = trajectory[-1], sorted(requests.get(t - 1, ()))
        gone |= set(forget)
        n = {k: len(y) for k, (_, y) in enumerate(data)}
        if not forget:
            clients = sample(seed, t, [k for k in range(len(data)) if k not in gone], slots)
            for k in clients:
                address = derive_seed(seed, "batches", t, k)
                last[k] = trained(w, *data[k], classes, seed=address, **train)
            total = sum(n[k] for k in clients)
            trajectory.append(w + sum(n[k] * (last[k] - w) for k in clients) / total)
            continue
        total = sum(n[k] for k in last)
        there = [u for u in forget if u in last]
        left = total - sum(n[u] for u in there)
        w_ref = (total * w - sum(n[u] * last[u] for u in there)) / left if left else w
        ball = authors_radius(w_ref, initial) if radius is None else radius
        paths = {}
        for u in there:
            tau = stop * distance(w_ref, last[u]) if stop_at is None else stop_at
            address = derive_seed(seed, "routine", t, u)
            settings = {**ascent, "radius": ball, "tau": tau, "seed": address}
            paths[u] = climbed(w_ref, last[u], *data[u], classes, **settings)
        told.append({"w_ref": w_ref, "radius": ball, "paths": paths, "last": dict(last)})
        if there:
            ends = {u: paths[u][-1] if paths[u] else w_ref for u in there}
            mean = sum(n[u] * ends[u] for u in there) / sum(n[u] for u in there)
            trajectory.append(put_back(mean, w_ref, ball))
        else:
            trajectory.append(w)
        for u in forget:
            last.pop(u, None)
    return trajectory, told
