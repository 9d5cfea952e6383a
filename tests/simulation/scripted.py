"""Real tiny runs whose requests recover when a script says so, whatever the accuracies of the machine are.

Everything is trained and measured as ever; only what a method's validation accuracy is compared with is put in the
place of the retrained model's: out of reach before the scripted round, reached from it on.
"""

from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedunlearn.config import Experiment
from fedunlearn.server.recovery import RetrainReference
from fedunlearn.simulation import runner
from fedunlearn.simulation.runner import simulate
from tests.e2e.tiny import TINY, tiny

NEVER = 1000
Script = Mapping[str, Mapping[tuple[int, ...], int]]
"""Label of a method → clients forgotten so far → first round at which it is as good as retraining."""

METHODS = """
[[method]]
name = "puf"
mode = "regular"
scale = 4.0
"""

TARGETS = tiny(
    "federation.num-clients=5",
    "targets=[[1], [3, 0]]",
    "measures.per-client=true",
    "measures.per-class=true",
    text=TINY + METHODS,
)
"""Rounds 3, cap 3, methods puf-special-2, natural, puf-regular-4."""
TARGETS_SCRIPT: Script = {
    "puf-special-2": {(1,): 5, (0, 3): NEVER},
    "natural": {(1,): 4, (0, 3): 4},
    "puf-regular-4": {(1,): 6, (0, 3): 5},
}

TIMELINE = tiny(
    'name="scripted-timeline"',
    "federation.num-clients=7",
    "federation.participation=0.6",
    "train.rounds=5",
    "train.local-epochs=2",
    "recover.max-rounds=4",
    text=TINY.replace("targets = [[1]]\n", "")
    + METHODS
    + """
[[forget]]
clients = [5]
at-round = 5
[[forget]]
clients = [0]
at-round = 2
[[forget]]
clients = [4, 2]
at-round = 3
[[forget]]
clients = [1]
at-round = 3
""",
)
"""4 of 7 clients per round. Requests 2 (round 2), 3 and 4 together (round 3), 1 (round 5, the last of training)."""
TIMELINE_SCRIPT: Script = {
    "puf-special-2": {(0,): NEVER, (0, 1, 2, 4): 5, (0, 1, 2, 4, 5): 8},
    "natural": {(0,): 3, (0, 1, 2, 4): 4, (0, 1, 2, 4, 5): 6},
    "puf-regular-4": {(0,): 3, (0, 1, 2, 4): NEVER, (0, 1, 2, 4, 5): NEVER},
}


@contextmanager
def recovery_by(script: Script):
    """Let requests recover by a script."""

    def references(self, branch):
        rounds = script.get(branch.label, {})
        return {
            frozenset(forgotten): RetrainReference(
                validation={t: 101.0 if t < met else 0.0 for t in range(1, 30)}, test_at_end=None
            )
            for forgotten, met in rounds.items()
        }

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner._Simulation, "_references", references)
        yield


def scripted(experiment: Experiment, script: Script, out: Path) -> Path:
    """Run an experiment by a script and return its run directory."""
    with recovery_by(script):
        return simulate(experiment, out=out)
