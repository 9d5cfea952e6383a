"""Training, validation and test data by case: a patient's slices never lie on two sides.

Per site a fifth of the cases is test data, the same in every experiment; the experiment's seed draws the cases
for validation from the rest. PUF's code splits by slice, so that neighbouring slices of one patient both train and
test its models: ours deviates.
"""

from __future__ import annotations

import numpy as np

from fedunlearn.data.prostate.layout import SITES
from fedunlearn.data.slice_index import SliceIndex
from fedunlearn.data.source import Indices
from fedunlearn.data.split import FIXED_SPLIT_SEED
from fedunlearn.errors import ConfigError
from fedunlearn.plurals import counted
from fedunlearn.randomness import numpy_generator

TEST_SHARE = 0.2


def split_by_case(
    index: SliceIndex, names: tuple[str, ...], share: float, seed: int
) -> tuple[Indices, Indices, Indices]:
    """Split rows into those to train, to validate and to test on.

    Parameters
    ----------
    index : SliceIndex
        Of all rows.
    names : tuple of str
        The sites'. A draw is addressed by the site's number in ``SITES``: who else is there does not change it.
    share : float
        ``data.validation``, of *all* cases of a site; at least one case unless it is 0.
    seed : int
        The experiment's.

    Returns
    -------
    train, validation, test : ndarray
        Sorted row numbers, disjoint, together all rows.

    Raises
    ------
    ConfigError
        A site with too few cases.
    """
    side = np.empty(len(index), dtype=np.int64)
    for site, name in enumerate(names):
        mine = np.flatnonzero(index.site == site)
        cases = np.unique(index.case[mine])
        test = held_out(len(cases), TEST_SHARE)
        validation = held_out(len(cases), share)
        _check(name, len(cases), share, validation, test)
        number = SITES.index(name)
        drawn = numpy_generator(FIXED_SPLIT_SEED, "test-split", client=number).permutation(cases)
        rest = numpy_generator(seed, "validation", client=number).permutation(np.sort(drawn[test:]))
        side[mine] = 0
        side[mine[np.isin(index.case[mine], rest[:validation])]] = 1
        side[mine[np.isin(index.case[mine], drawn[:test])]] = 2
    train, validate, tested = (np.flatnonzero(side == number).astype(np.int64) for number in range(3))
    return train, validate, tested


def held_out(cases: int, share: float) -> int:
    """Return how many of a site's cases a share is: at least one, unless it is 0."""
    return max(1, round(share * cases)) if share > 0 else 0


def _check(name: str, cases: int, share: float, validation: int, test: int) -> None:
    least = 3 if share > 0 else 2
    if cases < least:
        needed = (
            "one each to train, to validate and to test" if share > 0 else "one each to train and to test"
        )
        raise ConfigError(
            f"site {name}: has {counted(cases, 'case')} that can be used, but {least} are needed ({needed}); add "
            "cases, or remove the site's folder and lower federation.num-clients"
        )
    if validation + test >= cases:
        raise ConfigError(
            f"data.validation = {share}: leaves none of the {cases} cases of site {name} to train on, as {test} "
            "are for testing; lower it"
        )
