"""A small experiment on made-up images, as the file that client apps read."""

from pathlib import Path

from fedunlearn import config
from fedunlearn.config import Experiment

TEXT = """
name = "clients"
targets = [[1]]
[data]
source = "synthetic-images"
num-train = 160
num-test = 60
num-classes = 4
partition = "dirichlet"
alpha = 1.0
validation = 0.2
[federation]
num-clients = 5
[model]
name = "small-cnn"
[train]
rounds = 2
batch-size = 8
lr = 0.1
lr-decay = 0.9
momentum = 0.5
weight-decay = 1e-3
[[method]]
name = "puf"
mode = "regular"
scale = 4.0
[recover]
until = "max-rounds"
max-rounds = 2
"""


def write(folder: Path, *overrides: str) -> tuple[Path, Experiment]:
    """Write the experiment, resolved, into a folder of its own: apps take a file never to change."""
    experiment = config.loads(TEXT, overrides=overrides)
    path = folder / "experiment.toml"
    path.write_text(config.to_toml(experiment))
    return path, experiment
