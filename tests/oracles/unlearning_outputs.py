"""Unlearning by what a model gives out (TRW, MPRU), the slow and obvious way: loops over classes, in float64.

Nothing of the library; probabilities are lists of floats.
"""

import math

import numpy as np
import torch.nn.functional as F

from tests.oracles.unlearning import sgd, step


def softmax(values):
    largest = max(values)
    powers = [math.exp(value - largest) for value in values]
    return [power / sum(powers) for power in powers]


# -- TRW ------------------------------------------------------------------------------------------------------


def similarities(weight, forget, gone, components, temperature):
    """Return s_i for each class that stays, {class: value}: eigenvectors of the covariance, cosine, softmax."""
    rows = np.asarray(weight, dtype=np.float64)
    rows = rows - rows.mean(axis=0)
    dims = min(len(rows) - 1, components, rows.shape[1])
    values, vectors = np.linalg.eigh(rows.T @ rows)
    projected = rows @ vectors[:, np.argsort(-values)[:dims]]
    stay = [i for i in range(len(rows)) if i not in gone]
    mine = projected[forget]
    cosines = [
        projected[i] @ mine / (math.sqrt(projected[i] @ projected[i]) * math.sqrt(mine @ mine)) for i in stay
    ]
    return dict(zip(stay, softmax([cosine / temperature for cosine in cosines]), strict=True))


def tilted(probabilities, similarity, beta):
    """Return q: 0 where there is no similarity, p_i exp(β s_i) elsewhere, made to add up to 1."""
    q = [p * math.exp(beta * similarity[i]) if i in similarity else 0.0 for i, p in enumerate(probabilities)]
    return [value / sum(q) for value in q]


def trw(module, teacher, images, labels, gone, settings, passes):
    """Train on targets: of a class that goes the tilted one, of every other its own; `passes` holds rows."""
    optimizer = sgd(module, settings)
    weight = [p for p in teacher.parameters() if p.ndim == 2][-1].detach().numpy()
    for batches in passes:
        for rows in batches:
            losses = []
            for row in rows:
                label = int(labels[row])
                target = [float(i == label) for i in range(len(weight))]
                if label in gone:
                    s = similarities(weight, label, gone, settings.components, settings.temperature)
                    target = tilted(softmax(teacher(images[[row]])[0].tolist()), s, settings.beta)
                log_p = F.log_softmax(module(images[[row]])[0], dim=0)
                losses.append(-sum(t * log_p[i] for i, t in enumerate(target)))
            step(optimizer, sum(losses) / len(losses))


# -- MPRU -----------------------------------------------------------------------------------------------------


def without(probabilities, gone):
    """Return the softmax without some classes: p_j / Σ p over those that stay."""
    left = sum(p for j, p in enumerate(probabilities) if j not in gone)
    return [0.0 if j in gone else p / left for j, p in enumerate(probabilities)]


def pushed_on(probabilities, shares, hops=2000):
    """Return q after every class that goes has handed on what it has, again and again, till it has nothing.

    `shares` maps a class that goes to its row of R; None stands for "in proportion", which is done last.
    """
    q = [float(p) for p in probabilities]
    for _ in range(hops):
        for f, row in shares.items():
            if row is None:
                continue
            mass, q[f] = q[f], 0.0
            for j in range(len(q)):
                q[j] += mass * float(row[j])
    return without(q, set(shares))


def mean_without(rows, forget):
    """Return the mean over rows of probabilities of each made to add up to 1 without a class."""
    renormalised = [without(p, {forget}) for p in rows]
    return [sum(column) / len(rows) for column in zip(*renormalised, strict=True)]


def redistributed_likelihood(rows, labels, shares):
    """Return the mean log-probability of the true classes after one hop of redistribution."""
    total = 0.0
    for p, y in zip(rows, labels, strict=True):
        total += math.log(p[y] + sum(p[f] * row[y] for f, row in shares.items()))
    return total / len(labels)
