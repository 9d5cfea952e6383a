"""Whether every round has the clients that a robust rule needs, also once some of them have been forgotten."""

from __future__ import annotations

from fedunlearn.config import Experiment
from fedunlearn.config.toml_tree import Origin
from fedunlearn.simulation.branches import branches
from fedunlearn.simulation.planned_rounds import planned


def check_rounds(experiment: Experiment) -> None:
    """Refuse an experiment some of whose rounds have too few clients for its rule of aggregation.

    What the first round of a federation has is checked with the experiment file. Of a live one nobody knows before
    whom it is asked to forget.

    Raises
    ------
    ConfigError
        With one line that names the round with the fewest clients.
    """
    federation = experiment.federation
    if federation.aggregation == "mean" or experiment.live:
        return
    # A round in which those who are forgotten work alone has nobody's updates for the rule. Fewer clients can be
    # enough where more are not: of 5 a fifth is 1, who takes 5 under Krum; of 6 it is 2, who take 7.
    short = (
        (len(plan.train), plan.round, branch.name)
        for seed in experiment.seeds
        for branch in branches(experiment, seed)
        for plan, _ in planned(experiment, branch)
        if plan.train and federation.too_few(len(plan.train))
    )
    fewest = min(short, key=lambda found: found[0], default=None)
    if fewest is not None:
        clients, round, branch = fewest
        why = (
            f"{federation.too_few(clients)}, and round {round} of {branch} has {clients}; raise "
            'federation.num-clients, forget fewer, or write "mean"'
        )
        raise Origin(f"experiment {experiment.name}").error(
            "federation.aggregation", federation.aggregation, why
        )
