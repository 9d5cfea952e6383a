"""Membership measures, the slow and obvious way: one example at a time, nothing shared with the library.

Everything takes plain Python lists. ``logits`` is a list of rows, ``labels`` a list of class numbers,
``members`` and ``non_members`` are lists of scores where a higher score means "more likely a member".
"""

import math


def loss(row, label):
    """Cross-entropy of one example in nats, from exact sums of exponentials."""
    top = max(row)
    return math.log(math.fsum(math.exp(value - top) for value in row)) - (row[label] - top)


def losses(logits, labels):
    return [loss(row, label) for row, label in zip(logits, labels, strict=True)]


def yeom(forget_losses, retain_losses):
    """Percent of the forgotten examples whose loss is at most the mean loss of the retained ones."""
    threshold = math.fsum(retain_losses) / len(retain_losses)
    called = 0
    for value in forget_losses:
        if value <= threshold:
            called += 1
    return 100 * called / len(forget_losses)


def yeom_matched(forget_losses, forget_labels, retain_losses, retain_labels):
    """The same, against the mean loss of a retained set in which every label is as frequent as in F.

    Literally builds that set: for each forgotten example, one pseudo-example whose loss is the average of
    the retained examples that carry its label.
    """
    stand_ins = []
    for label in forget_labels:
        same = [value for value, other in zip(retain_losses, retain_labels, strict=True) if other == label]
        stand_ins.append(math.fsum(same) / len(same))
    return yeom(forget_losses, stand_ins)


def auc(members, non_members):
    """Share of (member, non-member) pairs in which the member scores higher; a tie is half a pair."""
    won = 0.0
    for member in members:
        for other in non_members:
            if member > other:
                won += 1
            elif member == other:
                won += 0.5
    return won / (len(members) * len(non_members))


def tpr_at_fpr(members, non_members, percent):
    """Best true-positive rate (percent) of any threshold with at most ``percent`` % false positives."""
    best = 0.0
    for threshold in [*members, *non_members, math.inf]:
        false_positives = sum(value >= threshold for value in non_members)
        if 100 * false_positives <= percent * len(non_members):
            best = max(best, 100 * sum(value >= threshold for value in members) / len(members))
    return best


def svm_decision(features, signs, *, penalty, gamma, queries, tolerance=1e-10, most_steps=200_000):
    """Decision values at ``queries`` of a soft-margin RBF support vector machine on scalar features.

    Sequential minimal optimisation with the most violating pair (Keerthi et al. 2001), ``signs`` in {-1, 1}:
    minimise ½ Σ a_i a_j s_i s_j k(i, j) − Σ a_i subject to 0 ≤ a ≤ penalty and Σ a_i s_i = 0.
    """

    def kernel(x, y):
        return math.exp(-gamma * (x - y) ** 2)

    n = len(features)
    table = [[kernel(x, y) for y in features] for x in features]
    alpha = [0.0] * n
    gradient = [-1.0] * n
    for _ in range(most_steps):
        up = [i for i in range(n) if (alpha[i] < penalty if signs[i] > 0 else alpha[i] > 0)]
        low = [i for i in range(n) if (alpha[i] > 0 if signs[i] > 0 else alpha[i] < penalty)]
        i = max(up, key=lambda t: -signs[t] * gradient[t])
        j = min(low, key=lambda t: -signs[t] * gradient[t])
        violation = -signs[i] * gradient[i] + signs[j] * gradient[j]
        if violation < tolerance:
            break
        curvature = max(table[i][i] + table[j][j] - 2 * table[i][j], 1e-12)
        room_i = penalty - alpha[i] if signs[i] > 0 else alpha[i]
        room_j = alpha[j] if signs[j] > 0 else penalty - alpha[j]
        step = min(violation / curvature, room_i, room_j)
        alpha[i] += signs[i] * step
        alpha[j] -= signs[j] * step
        for t in range(n):
            gradient[t] += signs[t] * step * (table[t][i] - table[t][j])
    upper = max(-signs[t] * gradient[t] for t in up)
    lower = min(-signs[t] * gradient[t] for t in low)
    bias = (upper + lower) / 2
    return [
        math.fsum(a * s * kernel(x, q) for a, s, x in zip(alpha, signs, features, strict=True)) + bias
        for q in queries
    ]
