"""The memory that is forecast: counted by hand where that is possible, and beside what a process really takes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedunlearn import config, workspace
from fedunlearn.data.phantom import write_phantoms
from fedunlearn.models.flat import FlatModel
from fedunlearn.simulation import memory as module
from fedunlearn.simulation.memory import (
    WORKSPACE,
    Memory,
    data_bytes,
    memory_of,
)
from tests.e2e.tiny import TINY, tiny

GB = 10**9
MLP = 64 * 8 + 8 + 8 * 4 + 4
PARTS = {
    "data": GB,
    "weights": 2 * GB,
    "constant": 1000,
    "per_image": 1e6,
    "models": 1,
    "batch_size": 64,
    "most_rows": 10**6,
    "evaluation": GB // 100,
    "evaluated": 500,
    "apart": False,
    "here": 20 * GB,
}


def need(**changes):
    return Memory(**{**PARTS, **changes})


def colour(*overrides):
    """An experiment on images of three channels."""
    return tiny("data.channels=3", *overrides)


# -- the sum --------------------------------------------------------------------------------------------------


@given(st.integers(1, 4096), st.integers(1, 4096), st.integers(1, 8))
def test_activations_are_linear_in_the_batch_and_in_the_models(one, other, models):
    memory = need(models=models)
    both = memory.training(one) + memory.training(other)
    assert both - memory.training(one + other) == pytest.approx(models * memory.constant * WORKSPACE, abs=2)
    assert memory.training(one) == pytest.approx(models * need().training(one), abs=models)


def test_evaluation_and_training_take_turns_unless_they_are_apart():
    assert need().total() == 3 * GB + need().training()
    assert need(evaluation=7 * GB).total() == 10 * GB
    assert need(evaluation=7 * GB, apart=True).total() == 10 * GB + need().training()


@given(st.integers(1, 300), st.integers(1, 10**9))
def test_the_batch_to_try_is_the_largest_power_of_two_fraction_that_fits(batch_size, here):
    memory = need(batch_size=batch_size, here=here, data=0, weights=0, evaluation=0)
    fractions = [batch_size >> n for n in range(1, 10) if batch_size >> n]
    fitting = [size for size in fractions if memory.total(size) <= here]
    assert memory.smaller_batch() == (fitting[0] if fitting else None)
    assert memory.fits == (memory.training(batch_size) <= here)


def test_a_batch_that_no_client_fills_is_not_worth_trying():
    assert need(batch_size=1024, most_rows=200, here=10**12).smaller_batch() == 128


# -- what stays -----------------------------------------------------------------------------------------------


def test_data_are_what_was_loaded_for_each_seed_and_each_worker_with_data_of_its_own():
    images, labels = (160 - 32 + 32 + 60) * 64 * 4, (160 + 60) * 8
    assert data_bytes(workspace.data_of(tiny(), 1)) == images + labels
    for overrides, copies in [
        ((), 1),
        (("seeds=[1, 2]",), 2),
        (("seeds=[1, 2, 3, 4, 5, 6]",), workspace.DATA_KEPT),
        (("engine.workers=3",), 1),
        (("engine.name=ray", "engine.workers=3"), 4),
    ]:
        assert memory_of(tiny(*overrides)).data == copies * (images + labels), overrides


@pytest.mark.parametrize(
    ("overrides", "copies"),
    [
        ((), 6 + 3),
        (("train.momentum=0.9",), 6 + 4),
        (("train.optimizer=adam",), 6 + 6),
        (("engine.workers=3",), 6 + 3 * 3),
        (("engine.workers=3", "train.momentum=0.9"), 6 + 3 * 4),
        (("numerics=fast", "engine.batch-clients=4"), 6 + 2 + 4 + 4 * 2 + 1),
        (('federation.aggregation="median"',), 6 + 4 + 3),
        (('federation.aggregation="median"', "federation.participation=0.75"), 6 + 3 + 3),
    ],
)
def test_weights_by_optimiser_and_workers(overrides, copies):
    assert memory_of(tiny(*overrides)).weights == copies * 4 * MLP


def test_a_live_federation_holds_the_updates_of_a_round():
    live = TINY[: TINY.index('[[method]]\nname = "natural"')].replace("targets = [[1]]\n", "")
    live += '[requests]\n[recover]\nuntil = "max-rounds"\n'
    assert memory_of(tiny(text=live)).weights == (6 + 4 + 3) * 4 * MLP


def test_buffers_are_weights_too():
    plain, normed = (
        module._weights(tiny(), workspace.data_of(tiny(), 1), FlatModel(layers), 1)
        for layers in (nn.Linear(4, 2), nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2, affine=False)))
    )
    assert normed - plain == 9 * (2 * 2 * 4 + 8), "two statistics and a counter, in nine copies"


@pytest.mark.parametrize(
    ("engine", "device", "workers"),
    [
        (("engine.name=ray",), "cpu", 1),
        (("engine.name=ray", "engine.workers=3"), "cpu", 3),
        (("engine.workers=3",), "cuda", 3),
        (("engine.name=ray", "engine.workers=3"), "cuda", 1),
        (("engine.name=ray", "engine.ray.gpus-per-worker=0.25"), "cuda", 4),
        (("engine.name=ray", "engine.workers=3", "engine.ray.gpus-per-worker=0.25"), "cuda", 3),
        (("engine.name=ray", "engine.workers=3", "engine.ray.gpus-per-worker=2"), "cuda", 1),
    ],
)
def test_workers_on_one_device(engine, device, workers, monkeypatch):
    monkeypatch.setattr(workspace, "device_of", lambda _: torch.device(device))
    assert module.workers_on_one_device(tiny(*engine)) == workers


# -- activations ----------------------------------------------------------------------------------------------


def test_as_many_models_as_train_side_by_side():
    assert memory_of(tiny("engine.workers=2")).models == 2
    assert memory_of(tiny("numerics=fast", "engine.batch-clients=4", "engine.workers=2")).models == 8


def test_no_batch_is_larger_than_the_largest_client():
    sizes = workspace.data_of(tiny(), 1).clients.sizes
    memory = memory_of(tiny("train.batch-size=1000"))
    assert (memory.batch_size, memory.most_rows) == (1000, max(sizes))
    assert memory.training() == memory_of(tiny(f"train.batch-size={max(sizes)}")).training() > 0
    assert memory.rows(2) == 2


def test_the_evaluation_is_of_its_own_batch_or_all_there_is():
    memory = memory_of(tiny())
    assert memory.evaluated == 128, "the training split"
    assert memory_of(tiny("data.num-train=2000")).evaluated == 500
    hidden, outputs = 8 * 4, 4 * 4
    assert 1 <= memory.evaluation / WORKSPACE / 128 / (hidden + outputs) <= 2


def test_measuring_leaves_no_trace():
    state = torch.get_rng_state()
    experiment = tiny()
    before = workspace.data_of(experiment, 1).content_hash
    memory_of(experiment)
    assert torch.equal(torch.get_rng_state(), state)
    assert replace(workspace.data_of(experiment, 1)).content_hash == before


def test_here_is_what_was_free_before_the_data_were_loaded(monkeypatch):
    monkeypatch.setattr(module, "free_bytes", lambda device: 5 << 30)
    assert memory_of(tiny()).here == (5 << 30) + data_bytes(workspace.data_of(tiny(), 1))


# -- beside a process -----------------------------------------------------------------------------------------

MEASURE = """
import json, resource, sys
from pathlib import Path
import torch
from fedunlearn import config, workspace
from fedunlearn.evaluation.outputs import predict
from fedunlearn.randomness import torch_generator
from fedunlearn.simulation.memory import memory_of
from fedunlearn.training import accelerate, train_local

torch.set_num_threads(1)

def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

def most_bytes():
    # Not ru_maxrss: that of a new process begins with what its parent held.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024

experiment = config.loads(Path(sys.argv[1]).read_text())
data = workspace.data_of(experiment, 1)
told = memory_of(experiment)
model = workspace.model_of(experiment, data)
images, labels = (tensor[:experiment.train.batch_size] for tensor in data.client(0))
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = resident_bytes()
if sys.argv[2] == "training":
    train_local(model, images, labels, experiment.train, lr=1e-3, generator=torch_generator(0, "x"),
                recipe=workspace.recipe_of(experiment, data))
else:
    predict(model.module, data.train_images[:told.evaluated])
print(json.dumps([told.training() if sys.argv[2] == "training" else told.evaluation, most_bytes() - before]))
"""
RESNET = ("data.image-size=32", "model.name=resnet18", "train.batch-size=64", "data.num-train=400")


def measured(experiment_text, what, folder):
    """Return the bytes told, and those that a process of its own took on top of what it had."""
    file = folder / "experiment.toml"
    file.write_text(experiment_text)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(file), what],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def phantoms(folder):
    """Return an experiment on a few slices of prostate phantoms."""
    write_phantoms(folder / "phantoms", cases=3, size=48)
    return config.loads(
        TINY.replace("num-clients = 4", "num-clients = 6"),
        overrides=[
            "data.partition=site",
            "data.source=prostate-mri",
            f"data.directory={folder / 'phantoms'}",
            "data.resize=96",
            "model.name=unet",
            "model.base-features=16",
            "train.optimizer=adam",
            "train.batch-size=16",
        ],
    )


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="tells no process's memory")
@pytest.mark.parametrize("what", ["training", "evaluation"])
@pytest.mark.parametrize("model", ["resnet18", "unet"])
def test_a_process_takes_what_was_told_within_a_factor_of_two(model, what, tmp_path):
    experiment = colour(*RESNET) if model == "resnet18" else phantoms(tmp_path)
    told, taken = measured(config.to_toml(experiment), what, tmp_path)
    assert told / 2 < taken < told * 2, f"told {told / 1e6:.0f} MB, taken {taken / 1e6:.0f} MB"
