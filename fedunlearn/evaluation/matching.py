"""Drawing examples so that their labels are mixed as in the forgotten data.

Under label skew the forgotten data F carry other labels than the retained data R and the test data T, and
an attack that compares them measures the labels as well as the membership. Here R and T are thinned until
their labels are mixed as in F (reconstruction: a correction of ours, no paper's).

With f_c examples of label c in F and a_c available, the thinned set holds q_c ≈ s·f_c of them, where s is
the largest factor with s·f_c ≤ a_c for every label and s·Σ f_c ≤ ``most``. The q_c are s·f_c rounded by
largest remainder to the total ⌊s·Σ f_c⌋, ties to the lower label. The factor may exceed 1: then there are
more non-members than forgotten examples, which only makes the attack's estimate steadier.
"""

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from fedunlearn.evaluation.scored import Unmeasurable

Integers = npt.NDArray[np.int64]


def require_labels(wanted: Integers, available: Integers) -> None:
    """Refuse a mix that cannot be met: nothing is wanted, or a wanted label is not available at all.

    Leaving such a label out would measure another set than F.

    Raises
    ------
    Unmeasurable
    """
    if not wanted.any():
        raise Unmeasurable("there are no forgotten examples")
    missing = np.flatnonzero((wanted > 0) & (available == 0)).tolist()
    if missing:
        names = ", ".join(map(str, missing))
        raise Unmeasurable(f"no example to compare with has label {names}, which the forgotten data have")


def label_quotas(wanted: Integers, available: Integers, *, most: int | None = None) -> Integers:
    """Return how many examples of each label to draw.

    Parameters
    ----------
    wanted : int array, shape (classes,)
        Label counts whose proportions are to be met (F's).
    available : int array, shape (classes,)
        Label counts to draw from.
    most : int, optional
        The total is at most this.

    Raises
    ------
    Unmeasurable
        As ``require_labels``.
    """
    require_labels(wanted, available)
    counts = {int(label): int(wanted[label]) for label in np.flatnonzero(wanted)}
    # Exact fractions: in floating point 3 * (1/3) could lose an example.
    factor = min(Fraction(int(available[label]), count) for label, count in counts.items())
    if most is not None:
        factor = min(factor, Fraction(most, sum(counts.values())))
    ideal = {label: factor * count for label, count in counts.items()}
    quotas = np.zeros(len(wanted), dtype=np.int64)
    for label, value in ideal.items():
        quotas[label] = int(value)
    left = int(sum(ideal.values())) - int(quotas.sum())
    for label in sorted(ideal, key=lambda c: (int(ideal[c]) - ideal[c], c))[:left]:
        quotas[label] += 1
    return quotas


def draw_by_label(labels: Integers, quotas: Integers, generator: np.random.Generator) -> Integers:
    """Draw ``quotas[c]`` examples of each label c without replacement; their sorted indices in ``labels``."""
    drawn = [
        generator.permutation(np.flatnonzero(labels == label))[:quota]
        for label, quota in enumerate(quotas.tolist())
        if quota
    ]
    return np.sort(np.concatenate(drawn)) if drawn else np.zeros(0, dtype=np.int64)


def draw(population: int, size: int, generator: np.random.Generator) -> Integers:
    """Draw ``size`` of ``population`` examples without replacement; their sorted indices."""
    return np.sort(generator.permutation(population)[:size])
