"""Measures of masks, the slow and obvious way: pixel by pixel over nested lists, nothing shared with the library.

A mask is a list of rows of class numbers; logits are one such list of rows of numbers per class.
"""

import math


def pixels(mask):
    return [(row, column) for row in range(len(mask)) for column in range(len(mask[0]))]


def predict(logits):
    """The class with the largest logit of each pixel; of equal ones the first."""

    def best(row, column):
        values = [plane[row][column] for plane in logits]
        return values.index(max(values))

    return [[best(row, column) for column in range(len(logits[0][0]))] for row in range(len(logits[0]))]


def dice(predicted, truth, label):
    """Percent; 100 where neither mask has the class."""
    both = ours = theirs = 0
    for row, column in pixels(truth):
        ours += predicted[row][column] == label
        theirs += truth[row][column] == label
        both += predicted[row][column] == label == truth[row][column]
    return 100 * 2 * both / (ours + theirs) if ours + theirs else 100.0


def mean_dice(predicted, truth, classes=2):
    return sum(dice(predicted, truth, label) for label in range(classes)) / classes


def probabilities(logits, row, column):
    values = [plane[row][column] for plane in logits]
    top = max(values)
    total = math.fsum(math.exp(value - top) for value in values)
    return [math.exp(value - top) / total for value in values]


def confidence(logits, truth):
    """Mean probability of the true class."""
    each = [probabilities(logits, row, column)[truth[row][column]] for row, column in pixels(truth)]
    return math.fsum(each) / len(each)


def loss(logits, truth, smooth=1e-5):
    """(Mean cross-entropy + mean over classes of the soft Dice loss) / 2 of one slice."""
    entropy = math.fsum(
        -math.log(probabilities(logits, row, column)[truth[row][column]]) for row, column in pixels(truth)
    ) / len(pixels(truth))
    soft = []
    for label in range(len(logits)):
        chance = {(row, column): probabilities(logits, row, column)[label] for row, column in pixels(truth)}
        here = [(row, column) for row, column in pixels(truth) if truth[row][column] == label]
        both = math.fsum(chance[place] for place in here)
        soft.append(1 - (2 * both + smooth) / (math.fsum(chance.values()) + len(here) + smooth))
    return (entropy + sum(soft) / len(soft)) / 2


def outline(mask):
    """Pixels of the mask that have one of their four neighbours outside it, or outside the image."""
    inside = {(row, column) for row, column in pixels(mask) if mask[row][column]}
    steps = [(1, 0), (-1, 0), (0, 1), (0, -1)]
    return [(r, c) for r, c in sorted(inside) if any((r + a, c + b) not in inside for a, b in steps)]


def percentile(values, percent):
    """With linear interpolation between the two nearest ranks."""
    ordered = sorted(values)
    place = percent / 100 * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def hausdorff_95(predicted, truth, spacing):
    """In mm: the larger 95th percentile of distances from one outline to the other; None if one is empty."""
    ours, theirs = outline(predicted), outline(truth)
    if not ours or not theirs:
        return None

    def away(start, end):
        return math.hypot((start[0] - end[0]) * spacing[0], (start[1] - end[1]) * spacing[1])

    there = [min(away(place, other) for other in theirs) for place in ours]
    back = [min(away(place, other) for other in ours) for place in theirs]
    return max(percentile(there, 95), percentile(back, 95))


def pixel_kl(reference_logits, logits):
    """Mean over all pixels of all slices of Σ p (log p − log q), p the reference's probabilities."""
    each = []
    for theirs, ours in zip(reference_logits, logits, strict=True):
        for row, column in pixels(theirs[0]):
            p, q = probabilities(theirs, row, column), probabilities(ours, row, column)
            each.append(math.fsum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True)))
    return math.fsum(each) / len(each)
