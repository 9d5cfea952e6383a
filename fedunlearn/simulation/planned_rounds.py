"""A branch's rounds counted without going through them: a million cost what a dozen do."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import pairwise

from fedunlearn.config import Experiment
from fedunlearn.server.branch import Branch
from fedunlearn.server.plan import RoundPlan
from fedunlearn.server.plans_ahead import plans, unlearnings

SAMPLED = 64
"""Of rounds between two requests that differ by the draw of their clients alone, so many are planned."""


def stretches(branch: Branch, unlearning: Collection[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last round of each stretch in which nothing is asked and nothing changes.

    Parameters
    ----------
    unlearning
        The rounds in which requests are served; each is a stretch of its own.
    """
    first, last = branch.first_round + 1, branch.last_round
    begins = {first, *(r.at_round + 1 for r in branch.requests)}
    begins |= {round + after for round in unlearning for after in (0, 1)}
    borders = sorted(begin for begin in begins if first <= begin <= last)
    yield from ((begin, following - 1) for begin, following in pairwise([*borders, last + 1]))


def planned(experiment: Experiment, branch: Branch) -> Iterator[tuple[RoundPlan, int]]:
    """Yield plans that stand for all rounds of a branch, and for how many each does.

    The strategy itself plans, so that an unlearning round or a smaller federation counts as it will be. Where all
    clients take part, one round stands for its stretch; where they are drawn, ``SAMPLED`` rounds at even distances.
    """
    everybody = experiment.federation.slots == experiment.federation.num_clients
    weights = {}
    served = {plan.round for found in unlearnings(experiment, branch) for plan in found.plans}
    for first, last in stretches(branch, served):
        rounds = last - first + 1
        tried = 1 if everybody else min(rounds, SAMPLED)
        for number in range(tried):
            begin, end = (rounds * part // tried for part in (number, number + 1))
            weights[first + begin] = end - begin
    for plan in plans(experiment, branch, weights):
        yield plan, weights[plan.round]


def kept(branch: Branch, first: int) -> int:
    """Return of how many rounds from ``first`` on the checkpoint is kept."""
    later = max(branch.last_round - max(branch.keep_from, first) + 1, 0)
    return later + sum(
        first <= round <= branch.last_round and round < branch.keep_from for round in branch.keep
    )


def kept_or_multiple(branch: Branch, first: int, every: int) -> int:
    """Return how many rounds from ``first`` on are kept, or are multiples of ``every``."""
    end = min(branch.keep_from, branch.last_round + 1)  # behind it all are kept
    multiples = max((end - 1) // every - (first - 1) // every, 0)
    both = sum(first <= round < end and round % every == 0 for round in branch.keep)
    return kept(branch, first) + multiples - both
