"""Whether every method has the rounds that its unlearning takes: those count against the cap on recovery."""

from __future__ import annotations

from dataclasses import replace

from fedunlearn.config import Experiment
from fedunlearn.config.toml_tree import Origin
from fedunlearn.server.branch import Branch, ForgetRequest
from fedunlearn.server.plans_ahead import MOST_ROUNDS, Unlearning, unlearnings
from fedunlearn.simulation.branches import branches


def check_cap(experiment: Experiment) -> None:
    """Refuse an experiment whose cap on recovery is reached before a request has been unlearned.

    Raises
    ------
    ConfigError
        With one line that names the least cap that would do.
    """
    cap = experiment.recover.max_rounds
    origin = Origin(f"experiment {experiment.name}")
    for branch, found in _unlearned(experiment):
        for request in found.requests:
            needed = found.last_round - request.at_round
            if not found.completes:
                why = (
                    f"the method {branch.label!r} does not complete an unlearning within {MOST_ROUNDS} rounds"
                )
                raise origin.error("recover.max-rounds", cap, why)
            if needed > cap:
                waits = ", others' that are served first included" if needed > len(found.plans) else ""
                why = f"must be at least {needed}, the rounds that {branch.label!r} takes to unlearn a request{waits}"
                raise origin.error("recover.max-rounds", cap, why)


def _unlearned(experiment: Experiment) -> list[tuple[Branch, Unlearning]]:
    found = branches(experiment, experiment.seeds[0])
    if experiment.live:  # what anybody will ask is not known: one client, say
        (live,) = found
        found = (replace(live, requests=(ForgetRequest("a request", (0,), experiment.train.rounds),)),)
    return [(branch, unlearning) for branch in found for unlearning in unlearnings(experiment, branch)]
