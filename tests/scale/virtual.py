"""A federation of very many virtual clients over little data, and what it takes: run as a process of its own.

``python -m tests.scale.virtual CLIENTS [FOLDER]`` prints one line of JSON: seconds of loading, and memory (MB) after
loading and once every client has been asked for its data; with a folder also what a whole simulation in it took: its
seconds, the most memory of the process, and the most of what Python and NumPy had allocated.
"""

from __future__ import annotations

import json
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import torch

from fedunlearn import config, plugins, workspace
from fedunlearn.config import Experiment
from fedunlearn.data import ImageSource
from fedunlearn.data.synthetic import SyntheticSettings

ROWS = 210_000  # two shards of a row for each of 100 000, once a hundredth is held out
SAMPLED = 100

TEXT = """
name = "virtual"
targets = [[0]]
cache = false
[data]
source = "synthetic-images"
num-train = {rows}
num-test = 500
num-classes = 10
image-size = 8
partition = "{partition}"
{of_partition}
validation = 0.01
[federation]
num-clients = {clients}
participation = {participation}
[model]
name = "mlp"
hidden = [16]
[train]
rounds = {rounds}
batch-size = 32
lr = 0.1
[[method]]
name = "puf"
[[method]]
name = "natural"
[recover]
max-rounds = 2
[engine]
name = "local"
device = "cpu"
"""


def experiment_of(clients: int, *, partition: str = "iid", rounds: int = 3) -> Experiment:
    """Return an experiment that samples 100 of so many clients a round and forgets client 0."""
    text = TEXT.format(
        clients=clients,
        participation=SAMPLED / clients,
        rows=ROWS,
        partition=partition,
        of_partition="classes-per-client = 2" if partition == "pathological" else "",
        rounds=rounds,
    )
    return config.loads(text)


def noise(settings: SyntheticSettings) -> ImageSource:
    """Return bytes at random in the place of images: making real ones would take more memory than all else."""
    num_classes, image_size, channels = settings.num_classes, settings.image_size, settings.channels
    rng = np.random.default_rng(0)

    def draw(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = rng.integers(0, 256, (n, channels, image_size, image_size), dtype=np.uint8)
        return torch.from_numpy(pixels), torch.from_numpy(rng.integers(0, num_classes, n))

    (train_images, train_labels), (test_images, test_labels) = (
        draw(settings.num_train),
        draw(settings.num_test),
    )
    names = tuple(map(str, range(num_classes)))
    return ImageSource(
        train_images,
        train_labels,
        test_images,
        test_labels,
        names,
        255.0,
        (0.5,) * channels,
        (0.3,) * channels,
    )


def megabytes(line: str = "VmRSS") -> float:
    """Return the memory that this process holds now, or with "VmHWM" the most it has held.

    That is not ``ru_maxrss``, which in a new process begins with what its parent held.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{line}:")[2].split()[0]) / 1024


def main(clients: int, folder: str | None) -> None:
    from fedunlearn.simulation.runner import simulate

    torch.set_num_threads(1)
    plugins.LOADED["data", "synthetic-images"] = noise
    experiment = experiment_of(clients)
    began = time.perf_counter()
    federated = workspace.data_of(experiment, seed=1)
    measured = {"load_seconds": time.perf_counter() - began, "loaded": megabytes()}
    seen = sum(len(federated.client(k)[1]) for k in range(clients))
    assert seen == len(federated.train_labels)
    measured["asked"] = megabytes()
    if folder is not None:
        tracemalloc.start()
        began = time.perf_counter()
        simulate(experiment, out=Path(folder))
        measured["simulate_seconds"] = time.perf_counter() - began
        measured["allocated"] = tracemalloc.get_traced_memory()[1] / 2**20
        measured["peak"] = megabytes("VmHWM")
    print(json.dumps(measured))


if __name__ == "__main__":
    main(int(sys.argv[1]), *(sys.argv[2:] or [None]))
