"""Splits of row numbers: the fixed one that makes a test set, and the seeded one that holds data out."""

import numpy as np

from fedunlearn.data.source import Indices
from fedunlearn.errors import ConfigError
from fedunlearn.randomness import numpy_generator

# A source that comes without a test set is split by this seed whatever the experiment's: a test set that
# moved with the experiment would let one repetition train on what another is judged by.
FIXED_SPLIT_SEED = 0


def stratified_test_split(labels: Indices, share: float) -> tuple[Indices, Indices]:
    """Split rows into training and test, the same for every experiment.

    Parameters
    ----------
    labels : ndarray
        int64, (n,).
    share : float
        Of each class, ``round(share · size)`` rows become test data.

    Returns
    -------
    train, test : ndarray
        Sorted row numbers, disjoint, together all rows.
    """
    rng = numpy_generator(FIXED_SPLIT_SEED, "test-split")
    is_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        is_test[rows[: round(share * len(rows))]] = True
    return np.flatnonzero(~is_test).astype(np.int64), np.flatnonzero(is_test).astype(np.int64)


def validation_split(n: int, share: float, rng: np.random.Generator) -> tuple[Indices, Indices]:
    """Hold out the first ``round(share · n)`` rows of a permutation of `n` rows.

    Returns
    -------
    train, validation : ndarray
        Sorted row numbers, disjoint, together ``0 … n-1``.

    Raises
    ------
    ConfigError
        A share that rounds to no validation row, or leaves no training row.
    """
    held_out = round(share * n)
    if share > 0 and held_out == 0:
        raise ConfigError(f"data.validation = {share}: holds out none of {n} rows; raise it, or set it to 0")
    if held_out >= n:
        raise ConfigError(f"data.validation = {share}: leaves none of {n} rows to train on; lower it")
    order = rng.permutation(n).astype(np.int64)
    return np.sort(order[held_out:]), np.sort(order[:held_out])
