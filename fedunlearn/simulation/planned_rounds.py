"""A branch's rounds counted without going through them: a million cost what a dozen do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from fedunlearn.config import Experiment
from fedunlearn.server.branch import Branch
from fedunlearn.server.plan import RoundPlan
from fedunlearn.server.serve import plans

SAMPLED = 64
"""Of rounds between two requests that differ by the draw of their clients alone, so many are planned."""


def stretches(branch: Branch) -> Iterator[tuple[int, int]]:
    """Yield the first and the last round of each stretch in which nothing is asked and nothing changes."""
    first, last = branch.first_round + 1, branch.last_round
    # A request is served in the round after its own; from the next one on it is behind.
    begins = {first, *(r.at_round + after for r in branch.requests for after in (1, 2))}
    borders = sorted(begin for begin in begins if first <= begin <= last)
    yield from ((begin, following - 1) for begin, following in pairwise([*borders, last + 1]))


def planned(experiment: Experiment, branch: Branch) -> Iterator[tuple[RoundPlan, int]]:
    """Yield plans that stand for all rounds of a branch, and for how many each does.

    The strategy itself plans, so that an unlearning round or a smaller federation counts as it will be. Where all
    clients take part, one round stands for its stretch; where they are drawn, ``SAMPLED`` rounds at even distances.
    """
    everybody = experiment.federation.slots == experiment.federation.num_clients
    weights = {}
    for first, last in stretches(branch):
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
