"""What is said to try when memory is too little: it is true, fits, and says whether the run can go on."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fedunlearn.config import to_toml
from fedunlearn.errors import OutOfMemoryError, RunError
from fedunlearn.simulation import shortage as module
from fedunlearn.simulation.memory import WORKSPACE, Memory
from fedunlearn.simulation.runner import simulate
from fedunlearn.simulation.shortage import remedy, what_would_fit
from tests.e2e.tiny import tiny

PER_IMAGE = 1000
AGAIN = ", which makes it another experiment that starts over"


def need(batch_size=64, *, here, evaluation=0, rest=0):
    return Memory(
        data=rest,
        weights=0,
        constant=0,
        per_image=PER_IMAGE / WORKSPACE,
        models=1,
        batch_size=batch_size,
        most_rows=10**6,
        evaluation=evaluation,
        evaluated=500,
        apart=False,
        here=here,
    )


def training(client=3):
    return OutOfMemoryError(f"client {client}, round 2: out of memory", during="training")


@pytest.fixture
def measured(monkeypatch):
    """Say what the estimate is to be."""
    return lambda memory: monkeypatch.setattr(module, "memory_of", lambda _: memory)


@pytest.mark.parametrize(
    ("memory", "line"),
    [
        (need(here=20 * PER_IMAGE), "train.batch-size = 64: try 16"),
        (need(here=63 * PER_IMAGE), "train.batch-size = 64: try 32"),
        (
            need(here=PER_IMAGE - 1),
            "no train.batch-size fits; try a smaller model or smaller images",
        ),
        (
            need(here=99, rest=100),
            "no train.batch-size fits; try a smaller model or smaller images",
        ),
        (need(1, here=10), "no train.batch-size fits; try a smaller model or smaller images"),
    ],
)
def test_before_a_run(memory, line):
    assert not memory.fits
    assert what_would_fit(tiny(), memory) == line


def test_before_a_run_of_several_workers():
    experiment, few = tiny("engine.workers=4"), "; lowering engine.workers = 4 changes no result"
    assert what_would_fit(experiment, need(here=20 * PER_IMAGE)) == f"train.batch-size = 64: try 16{few}"
    assert what_would_fit(experiment, need(here=0)) == f"no train.batch-size fits{few}"


@pytest.mark.parametrize(("here", "tried"), [(20, 16), (63, 32), (1000, 32), (1, 1), (0, 16)])
def test_after_a_client_ran_out_at_least_half_and_what_fits(here, tried, measured):
    """The estimate may think that all is well, and may not know of anything that fits: then a quarter."""
    measured(need(here=here * PER_IMAGE))
    assert remedy(tiny("train.batch-size=64"), training()) == f"train.batch-size = 64: try {tried}{AGAIN}"


def test_a_batch_of_one_image_cannot_be_halved(measured):
    measured(need(1, here=0))
    assert remedy(tiny("train.batch-size=1"), training()).startswith("train.batch-size = 1 is as small as")


def test_workers_and_stacks_are_fewer_with_the_same_result(measured):
    measured(need(8, here=5 * PER_IMAGE))
    told = remedy(tiny("engine.workers=4"), training())
    assert told == (
        f"train.batch-size = 8: try 4{AGAIN}; or engine.workers = 4: try 2, which --resume accepts"
    )
    stacked = remedy(tiny("numerics=fast", "engine.batch-clients=8"), training())
    assert stacked == f"train.batch-size = 8: try 4{AGAIN}; or engine.batch-clients = 8: try 4, likewise"


def test_an_evaluation_is_not_helped_by_smaller_batches_unless_training_takes_more(measured):
    error = OutOfMemoryError("evaluation, round 1: out of memory", during="evaluation")
    measured(need(here=100 * PER_IMAGE, evaluation=500 * PER_IMAGE))
    assert "train.batch-size" not in remedy(tiny(), error)
    assert "evaluated at once" in remedy(tiny(), error)
    measured(need(here=20 * PER_IMAGE, evaluation=PER_IMAGE))
    assert "train.batch-size = 64: try 16" in remedy(tiny("train.batch-size=64"), error)


def test_elsewhere_the_estimate_decides_whether_a_smaller_batch_makes_room(measured):
    error = OutOfMemoryError("original-s1: out of memory")
    measured(need(here=20 * PER_IMAGE))
    assert remedy(tiny("train.batch-size=64"), error) == f"train.batch-size = 64: try 16{AGAIN}"
    measured(need(here=100 * PER_IMAGE))
    assert remedy(tiny("train.batch-size=64"), error) == "try a smaller model or smaller images"


def test_where_there_is_no_memory_left_to_measure_it_is_a_guess(monkeypatch):
    def full(_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(module, "memory_of", full)
    assert remedy(tiny("train.batch-size=64"), training()) == f"train.batch-size = 64: try 16{AGAIN}"


# -- in a run -------------------------------------------------------------------------------------------------


def full(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def ended(experiment, out):
    with pytest.raises(RunError) as error:
        simulate(experiment, out=out)
    told = str(error.value)
    assert "\n" not in told
    return told


@pytest.mark.parametrize("engine", [("engine.workers=1",), ("engine.workers=2",)])
def test_a_run_ends_with_client_round_and_what_to_try(engine, tmp_path, monkeypatch):
    monkeypatch.setattr("fedunlearn.clients.trainer.train_local", full)
    told = ended(tiny("federation.quorum=0.1", *engine), tmp_path)
    assert told.startswith("client ")
    assert f", round 1: out of memory (asked for 2.00 GiB); train.batch-size = 8: try 4{AGAIN}" in told


def test_fewer_workers_do_go_on_where_it_stopped(tmp_path, monkeypatch):
    """The advice is right: it is the same run directory, and the same result."""
    with monkeypatch.context() as patched:
        patched.setattr("fedunlearn.clients.trainer.train_local", full)
        assert "engine.workers = 2: try 1, which --resume accepts" in ended(
            tiny("engine.workers=2"), tmp_path / "a"
        )
    (begun,) = (tmp_path / "a").iterdir()
    assert simulate(tiny("engine.workers=1"), out=tmp_path / "a", resume=True) == begun
    smaller = simulate(tiny("train.batch-size=4"), out=tmp_path / "a")
    assert smaller != begun, "another experiment"


def test_an_evaluation_that_runs_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("fedunlearn.server.evaluation.collect", full)
    told = ended(tiny(), tmp_path)
    assert told.startswith("evaluation, round ")
    assert "out of memory (asked for 2.00 GiB); " in told


def test_so_is_the_measuring_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("fedunlearn.simulation.scoring.measure", full)
    assert ended(tiny(), tmp_path).startswith("measuring the finished branches: out of memory")


def test_and_whatever_else_a_branch_does(tmp_path, monkeypatch):
    monkeypatch.setattr("fedunlearn.server.round.Round.fedavg", full)
    assert ended(tiny(), tmp_path).startswith("original-s1: out of memory")


LITTLE = """
import resource, sys
from pathlib import Path
from fedunlearn import config, workspace
from fedunlearn.cli.main import main
from fedunlearn.simulation.memory import memory_of
import fedunlearn.report.page, fedunlearn.simulation.runner, fedunlearn.strategies.puf

experiment = config.load("experiment.toml")
data = workspace.data_of(experiment, 1)
memory_of(experiment)
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 800 * 2**20,) * 2)
sys.argv = ["fedunlearn", "run", "experiment.toml"]
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="tells no process's memory")
def test_a_process_that_may_have_no_more_memory_says_so_in_one_line(tmp_path):
    """No mock: the system refuses, PyTorch's allocator raises, and the command line has one line and exit code 1."""
    overrides = ("data.channels=3", "data.image-size=32", "data.num-train=600", "data.num-test=40")
    experiment = tiny(*overrides, "model.name=resnet18", "train.batch-size=256", "federation.quorum=0.1")
    (tmp_path / "experiment.toml").write_text(to_toml(experiment))
    done = subprocess.run(
        [sys.executable, "-c", LITTLE],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 1, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("failed: "))
    assert re.match(
        r"failed: (client \d|evaluation), round \d: out of memory \(asked for \d+ bytes\); ", line
    )
    assert re.search(r"train.batch-size = 256: try \d+, which makes it another experiment", line)
    assert "Traceback" not in done.stderr
