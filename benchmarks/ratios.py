"""Ratios of medians with 95 % bootstrap intervals.

Rows that took turns are compared pair by pair: the median of the ratios of the rounds that belong together. Rows
that ran in processes of their own are compared by the ratio of their medians, and the bootstrap draws processes
first and rounds of each after: rounds of one process share its moment and its memory layout.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from fedunlearn.randomness import numpy_generator

RESAMPLES = 10_000


@dataclass(frozen=True)
class Ratio:
    """A ratio, and its 95 % percentile interval.

    Attributes
    ----------
    n : int
        Pairs, or rounds of the row with fewer, that it rests on.
    """

    value: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return asdict(self)


def paired(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """Return the median of the ratios, pair by pair."""
    ratios = np.array(numerator) / np.array(denominator)
    draws = _generator().integers(0, len(ratios), size=(RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[draws], axis=1), [2.5, 97.5])
    return Ratio(float(np.median(ratios)), float(low), float(high), len(ratios))


def of_blocks(numerator: Sequence[Sequence[float]], denominator: Sequence[Sequence[float]]) -> Ratio:
    """Return the ratio of the medians over all rounds of each; a block holds the rounds of one process."""
    generator = _generator()
    value = median_of_blocks(numerator) / median_of_blocks(denominator)
    draws = _medians(numerator, generator) / _medians(denominator, generator)
    low, high = np.percentile(draws, [2.5, 97.5])
    n = min(sum(map(len, numerator)), sum(map(len, denominator)))
    return Ratio(value, float(low), float(high), n)


def spread(seconds: Sequence[float]) -> tuple[float, float]:
    """Return the quartiles between which the middle half lies."""
    low, high = np.percentile(np.array(seconds), [25, 75])
    return float(low), float(high)


def median_of_blocks(blocks: Sequence[Sequence[float]]) -> float:
    """Return the median over all rounds of all blocks."""
    return statistics.median(chain.from_iterable(blocks))


def _medians(blocks: Sequence[Sequence[float]], generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return medians of resampled rounds of resampled blocks."""
    lengths = np.array([len(block) for block in blocks])
    padded = np.full((len(blocks), lengths.max()), np.nan)
    for row, block in zip(padded, blocks, strict=True):
        row[: len(block)] = block
    chosen = generator.integers(0, len(blocks), size=(RESAMPLES, len(blocks), 1))
    rounds = generator.random((RESAMPLES, len(blocks), lengths.max()))
    drawn = padded[chosen, (rounds * lengths[chosen]).astype(int)]
    drawn[np.arange(lengths.max()) >= lengths[chosen]] = np.nan  # as many rounds of a block as it has
    medians: npt.NDArray[np.float64] = np.nanmedian(drawn.reshape(RESAMPLES, -1), axis=1)
    return medians


def _generator() -> np.random.Generator:
    return numpy_generator(0, "bootstrap")
