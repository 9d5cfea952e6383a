"""A whole experiment in a second: the same protocol as the quickstart on little synthetic data."""

from pathlib import Path
from typing import Any

from fedunlearn import config
from fedunlearn.config import Experiment
from fedunlearn.requests import Ledger
from fedunlearn.simulation.runner import read_scorecard, simulate
from tests.evaluation.equal_cards import without_seconds

TINY = """
name = "tiny"
seeds = [1]
targets = [[1]]
cache = false
[data]
source = "synthetic-images"
num-train = 160
num-test = 60
num-classes = 4
partition = "dirichlet"
alpha = 1.0
validation = 0.2
[federation]
num-clients = 4
[model]
name = "mlp"
hidden = [8]
[train]
rounds = 3
batch-size = 8
lr = 0.1
[[method]]
name = "puf"
[[method]]
name = "natural"
[recover]
max-rounds = 3
[floor]
retrainings = 1
"""

TIMELINE = (
    TINY.replace("targets = [[1]]\n", "").replace('name = "tiny"', 'name = "tiny-timeline"')
    + """
[[forget]]
clients = [0]
at-round = 2
[[forget]]
clients = [2]
at-round = 3
"""
)

KEPT = (
    TIMELINE[: TIMELINE.index("[[method]]")].replace('name = "tiny-timeline"', 'name = "tiny-kept"')
    + """
[[method]]
name = "pga"
epochs = 2
[[method]]
name = "federaser"
[[method]]
name = "federaser"
label = "federaser-parameters"
calibrate = "average-layer"
half = true
"""
    + TIMELINE[TIMELINE.index("[recover]") :]
).replace("max-rounds = 3", "max-rounds = 6")
"""Methods that forget by what is kept of earlier rounds, asked again while they are at it."""

_WITHOUT_TARGETS = TINY.replace("targets = [[1]]\n", "")
_METHODS = """
[[method]]
name = "puf"
mode = "regular"
scale = 3
[[method]]
name = "local-routine"
routine = "random-label"
settings = {epochs = 1, batch-size = 8}
"""

PARTS = (
    _WITHOUT_TARGETS.replace('name = "tiny"', 'name = "tiny-parts"')
    + _METHODS
    + """
[[target]]
clients = [1]
samples = 0.5
[[target]]
classes = [2]
[[target]]
clients = [3, 0]
classes = [0, 1]
samples = 0.6
"""
)
"""Parts of clients' data are forgotten: a share, a class of everyone, a share of classes of two."""

PARTS_TIMELINE = (
    _WITHOUT_TARGETS.replace('name = "tiny"', 'name = "tiny-parts-timeline"')
    + _METHODS
    + """
[[forget]]
clients = [1]
samples = 0.5
at-round = 1
[[forget]]
clients = [1]
classes = [1, 2]
at-round = 1
[[forget]]
clients = [1]
at-round = 2
[[forget]]
classes = [0]
at-round = 3
"""
)
"""Two parts of one client in one round, then what is left of it, then a class of everyone."""


def tiny(*overrides: str, text: str = TINY) -> Experiment:
    """Return the tiny experiment with some keys overridden."""
    return config.loads(text, overrides=overrides)


def run(experiment: Experiment, out: Path, **options: Any) -> Path:
    """Run it and return the run directory."""
    return simulate(experiment, out=out, **options)


def checkpoints(folder: Path) -> dict[str, bytes]:
    """Return every checkpoint's bytes by file name."""
    return {p.name: p.read_bytes() for p in sorted((folder / "checkpoints").glob("*.safetensors"))}


def card(folder: Path) -> dict[str, Any]:
    """Return the scorecard less what the clock decides."""
    return without_seconds(read_scorecard(folder))


def request_states(folder: Path) -> dict[tuple[str, str], str]:
    """Return the state of every request of every branch."""
    with Ledger(folder / "requests.sqlite") as ledger:
        return {(b, r.id): r.state for b in ledger.branches() for r in ledger.requests(b)}


def everything(folder: Path) -> tuple[Any, ...]:
    """Return all that two runs of one experiment must agree on."""
    return checkpoints(folder), card(folder), request_states(folder)
