"""Distances between two models by explicit loops over lists of floats."""

import math


def log_softmax(row):
    top = max(row)
    total = math.log(math.fsum(math.exp(value - top) for value in row)) + top
    return [value - total for value in row]


def mean_kl(reference_logits, logits):
    """Mean over examples of Σ_c p_c (log p_c − log q_c), nats, p the reference's softmax."""
    per_example = []
    for reference, row in zip(reference_logits, logits, strict=True):
        pairs = zip(log_softmax(reference), log_softmax(row), strict=True)
        per_example.append(math.fsum(math.exp(log_p) * (log_p - log_q) for log_p, log_q in pairs))
    return math.fsum(per_example) / len(per_example)


def l2(a, b):
    return math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def cosine_distance(a, b):
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    norm_a = math.sqrt(math.fsum(x * x for x in a))
    norm_b = math.sqrt(math.fsum(y * y for y in b))
    return 1 - dot / (norm_a * norm_b)
