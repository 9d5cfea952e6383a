"""A small file in Covertype's format: real columns, made-up rows whose class can be learned."""

import numpy as np


def rows_of(count: int, seed: int) -> np.ndarray:
    """Return rows of 54 integers and a class 1 to 7, (count, 55): the higher, the later the class."""
    rng = np.random.default_rng(seed)
    label = np.arange(count) % 7 + 1
    measured = rng.integers(0, 250, size=(count, 10))
    measured[:, 0] = 1900 + 250 * label + rng.normal(0, 150, size=count).round().astype(int)
    area = np.eye(4, dtype=int)[rng.integers(0, 4, size=count)]
    soil = np.eye(40, dtype=int)[(5 * label + rng.integers(0, 10, size=count)) % 40]
    rows = np.column_stack([measured, area, soil, label])
    return rows[rng.permutation(count)]


def lines_of(rows: np.ndarray) -> str:
    """Return them as the archive has them."""
    return "".join(",".join(str(int(value)) for value in row) + "\n" for row in rows)
