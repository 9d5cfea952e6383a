"""How uneven honest updates are: what the bounds of ``[guard]`` were chosen by.

::

    python -m benchmarks.honest_norms                 # some minutes
    python -m benchmarks.honest_norms --rounds 10 --seeds 1

Federated averaging of ten clients, with nobody hostile and nobody forgotten: scikit-learn's digits for ROUNDS rounds
and MNIST-5k for 40 % of them, an MLP, learning rates 0.1 and 0.03, one epoch of batches of 32.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low

import torch

from benchmarks.hostile import UNEVEN
from benchmarks.machine import in_words, machine
from benchmarks.tables import markdown
from fedunlearn import config, workspace
from fedunlearn.config import Experiment
from fedunlearn.errors import ConfigError
from fedunlearn.federation.answers import RoundWork
from fedunlearn.federation.sums import BlockSum
from fedunlearn.models.state import ModelState
from fedunlearn.simulation.engines import open_grid

EXPERIMENT = """
name = "honest"
seeds = [1]
targets = [[0]]
[data]
source = "digits"
[federation]
num-clients = 10
[model]
name = "mlp"
[train]
rounds = 1
lr = 0.1
[[method]]
name = "natural"
"""
SOURCES = {"digits": 1.0, "mnist5k": 0.4}
"""Source → the share of the rounds that it is trained for."""


@dataclass(frozen=True)
class Unevenness:
    """Extremes over the clients and rounds of one federation.

    Attributes
    ----------
    longest, shortest : float
        ‖Δ_k‖ in medians of its round.
    longest_so_far : float
        In the largest median of a round so far.
    examples : float
        n_k in medians.
    opposed : float
        The least cosine between a client's update and its last.
    """

    longest: float
    shortest: float
    longest_so_far: float
    examples: float
    opposed: float


def unevenness(experiment: Experiment, rounds: int) -> Unevenness:
    """Train and look at every update."""
    seed = experiment.seeds[0]
    torch.set_num_threads(experiment.engine.threads_per_client)
    data = workspace.data_of(experiment, seed)
    model = workspace.new_model(experiment, data, seed)
    state = ModelState(model.vector.clone(), model.buffers())
    longest, shortest, so_far, examples, opposed = 0.0, 1.0, 0.0, 0.0, 1.0
    largest, before = 0.0, dict[int, torch.Tensor]()
    with (
        tempfile.TemporaryDirectory() as folder,
        open_grid(experiment, str(Path(folder) / "e.toml"), seed) as grid,
    ):
        for round in range(1, rounds + 1):
            told = {"round": round, "lr": experiment.train.lr, "seed": seed}
            everybody = tuple(range(experiment.federation.num_clients))
            work = RoundWork(state, told, everybody, individually=True, norms=True)
            answers = grid.trainer.train_round(work)  # type: ignore[attr-defined]
            usual = median_low(answers.norms.values())
            largest = max(largest, usual)
            longest = max(longest, max(answers.norms.values()) / usual)
            shortest = min(shortest, min(answers.norms.values()) / usual)
            so_far = max(so_far, max(answers.norms.values()) / largest)
            counts = [c.num_examples for c in answers.retained]
            examples = max(examples, max(counts) / median_low(counts))
            for c in answers.retained:
                if c.client in before:
                    cosine = torch.cosine_similarity(before[c.client], c.delta, dim=0).item()
                    opposed = min(opposed, cosine)
                before[c.client] = c.delta
            state = ModelState(BlockSum.of(answers.retained).step_from(state.vector))
    return Unevenness(longest, shortest, so_far, examples, opposed)


def federations(rounds: int, seeds: int) -> Iterator[tuple[str, Unevenness]]:
    """Yield the partition of every federation, and how uneven its updates were."""
    for partition, settings in UNEVEN.items():
        for source, share in SOURCES.items():
            for lr in (0.1, 0.03):
                for seed in range(1, seeds + 1):
                    sets = [*settings.split(), f'data.source="{source}"', f"train.lr={lr}", f"seeds=[{seed}]"]
                    try:
                        found = unevenness(
                            config.loads(EXPERIMENT, overrides=sets), max(1, int(share * rounds))
                        )
                    except ConfigError:  # the partition leaves a client without data
                        continue
                    print(
                        f"{partition}, {source}, lr {lr}, seed {seed}: {found}", file=sys.stderr, flush=True
                    )
                    yield partition, found


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    headline = str(__doc__).partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.honest_norms", description=headline)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5, help="1 to SEEDS")
    chosen = parser.parse_args(arguments)
    groups: dict[str, list[Unevenness]] = defaultdict(list)
    for partition, found in federations(chosen.rounds, chosen.seeds):
        groups[partition].append(found)
    headings = (
        "partition",
        "federations",
        "longest",
        "longest so far",
        "shortest",
        "most examples",
        "most opposed",
    )
    lines = [
        (
            partition,
            str(len(some)),
            f"{max(one.longest for one in some):.1f}",
            f"{max(one.longest_so_far for one in some):.1f}",
            f"{min(one.shortest for one in some):.3f}",
            f"{max(one.examples for one in some):.1f}",
            f"{min(one.opposed for one in some):.2f}",
        )
        for partition, some in groups.items()
    ]
    print(markdown(headings, lines))
    print(f"\n{in_words(machine())}")


if __name__ == "__main__":
    main()
