"""The bootstrap interval of a mean, resample by resample."""

import hashlib
import math

import numpy as np


def interval(values, resamples=2000):
    """2.5 % and 97.5 % points of the means of ``resamples`` draws with replacement.

    The generator is rebuilt here from its documented address, ``0/bootstrap/0/0``.
    """
    digest = hashlib.blake2b(b"0/bootstrap/0/0", digest_size=8).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
    draws = generator.integers(0, len(values), size=(resamples, len(values))).tolist()
    means = sorted(math.fsum(values[i] for i in draw) / len(values) for draw in draws)
    return percentile(means, 2.5), percentile(means, 97.5)


def percentile(ordered, percent):
    """Linear interpolation between the two nearest of the sorted values."""
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
