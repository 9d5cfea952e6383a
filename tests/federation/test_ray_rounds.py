"""Rounds on Ray actors: bit for bit those of the local engine, whoever trains whom."""

import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from hypothesis import given
from hypothesis import strategies as st
from ray._private.internal_api import node_stats

from fedunlearn.errors import OutOfMemoryError
from fedunlearn.federation.local_trainer import LocalTrainer
from fedunlearn.federation.ray import RayGrid
from fedunlearn.federation.sums import BlockSum
from tests.federation.contributions import bits
from tests.federation.ray_routines import WITH_BUFFERS, RayRoutine, round_of
from tests.federation.ray_sessions import own_ray
from tests.profiles import few

CLIENT_SETS = st.sets(st.integers(0, 700), min_size=1, max_size=30).map(sorted)
FAULTS = st.dictionaries(st.integers(0, 700), st.sampled_from(["raise", "nan", "none"]), max_size=40)


SHARE = 0.1  # of a CPU for each actor: room for many, and Ray starts no process before it is needed


@pytest.fixture(scope="module", autouse=True)
def session():
    with own_ray(cpus=1):
        yield


@pytest.fixture(scope="module", params=[1, 2, 3])
def engine(request):
    """A trainer on so many actors; a model with buffers where there are two."""
    buffers = request.param == 2
    routine = WITH_BUFFERS if buffers else RayRoutine
    with RayGrid("x:y", 701, workers=request.param, routine=routine, cpus_per_worker=SHARE) as grid:
        yield grid.trainer, routine, buffers


def plain(answers):
    """Return everything in a round's answers, down to the bits."""
    summed = answers.retained if isinstance(answers.retained, BlockSum) else BlockSum.of(answers.retained)
    singles = answers.forgetting + ([] if isinstance(answers.retained, BlockSum) else answers.retained)
    mean = [bits(summed.mean()), {k: bits(v) for k, v in summed.mean_buffers().items()}] if summed else []
    return {
        "sum": [mean, summed.num_examples],
        "singles": [
            (c.client, c.num_examples, bits(c.delta), {k: bits(v) for k, v in c.buffers.items()})
            for c in singles
        ],
        "losses": list(answers.losses.items()),
        "failed": [(client, why.splitlines()[-1]) for client, why in answers.failed.items()],
    }


@pytest.mark.quick(engine=1)
@given(CLIENT_SETS, CLIENT_SETS, st.booleans(), FAULTS)
@few
def test_a_round_has_the_bits_of_the_local_engine(engine, train, forget, individually, faults):
    trainer, routine, buffers = engine
    work = round_of(train, forget=forget[:3], individually=individually, buffers=buffers, faults=faults)
    assert plain(trainer.train_round(work)) == plain(LocalTrainer(routine).train_round(work))


@pytest.mark.slow
@pytest.mark.parametrize("share", [1, 3])
def test_so_has_a_large_federation(engine, share):
    trainer, routine, buffers = engine
    work = round_of(range(0, 701, share), forget=(5, 64), buffers=buffers, faults={70: "raise"})
    assert plain(trainer.train_round(work)) == plain(LocalTrainer(routine).train_round(work))


@pytest.mark.slow
def test_who_raises_is_named_with_the_traceback_and_the_next_round_is_clean(engine):
    trainer, routine, buffers = engine
    failed = trainer.train_round(
        round_of(range(5), forget=(7,), buffers=buffers, faults={1: "raise", 7: "raise"})
    )
    assert list(failed.failed) == [1, 7]
    assert failed.failed[1].startswith("Traceback")
    assert "in train" in failed.failed[1]
    clean = round_of(range(5), forget=(7,), buffers=buffers, number=2)
    assert plain(trainer.train_round(clean)) == plain(LocalTrainer(routine).train_round(clean))


@pytest.mark.slow
def test_stacks_give_the_same_sum_up_to_rounding():
    work = round_of(range(0, 300, 2), faults={20: "nan", 40: "raise"})
    exact = LocalTrainer(RayRoutine).train_round(work)
    with RayGrid("x:y", 300, workers=1, routine=RayRoutine, batch_clients=16, cpus_per_worker=SHARE) as grid:
        answers = grid.trainer.train_round(work)
    assert list(answers.failed) == [20, 40]
    torch.testing.assert_close(answers.retained.mean(), exact.retained.mean(), rtol=0, atol=1e-6)


# -- what lies in the object store ---------------------------------------------------------------------------


class Overseer(RayRoutine):
    """Holds data, as clients do."""

    def __init__(self, data):
        super().__init__(size=300_000)
        self.data = data

    def train(self, client, kind, config, tensors):
        result = super().train(client, kind, config, tensors)
        in_store = any(
            "plasma" in line and _holds(line, self.data.data_ptr())
            for line in Path("/proc/self/maps").read_text().splitlines()
        )
        return type(result)(result.num_examples, float(in_store))


def in_store():
    (node,) = ray.nodes()
    return node_stats(node["NodeManagerAddress"], node["NodeManagerPort"]).store_stats.object_store_bytes_used


def _holds(line, address):
    first, last = (int(number, 16) for number in line.split()[0].split("-"))
    return first <= address < last


@pytest.mark.slow
def test_data_in_the_routine_are_one_for_all_and_weights_are_gone_after_the_round():
    size, megabyte = 300_000, 1 << 20
    data = torch.from_numpy(np.arange(5 * megabyte, dtype=np.uint8))
    with RayGrid("x:y", 10, workers=2, routine=partial(Overseer, data), cpus_per_worker=SHARE) as grid:
        for number in range(1, 4):
            work = round_of(range(10), forget=(11,), number=number, size=size)
            answers = grid.trainer.train_round(work)
            assert set(answers.losses.values()) == {1.0}, "every client sees the data in the object store"
            assert bits(answers.retained.mean()) == bits(
                LocalTrainer(partial(RayRoutine, size=size)).train_round(work).retained.mean()
            )
        del answers
        deadline = time.monotonic() + 60
        while in_store() > 5.1 * megabyte:  # freed when Ray comes to it
            assert time.monotonic() < deadline, f"{in_store()} bytes are still in the object store"


@pytest.mark.slow
def test_impossible_sizes_are_refused():
    for wrong in ("num_clients", "workers", "threads_per_client", "batch_clients"):
        with pytest.raises(ValueError, match="must each be at least 1"):
            RayGrid("x:y", **{"num_clients": 3, wrong: 0})
    with pytest.raises(ValueError, match="cpus_per_worker must be more than 0"):
        RayGrid("x:y", 3, cpus_per_worker=0)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["memory", "allocate"])
def test_a_client_without_memory_ends_the_run_and_its_worker_lives_on(engine, fault):
    trainer, _, buffers = engine
    with pytest.raises(OutOfMemoryError, match=r"^client 4, round 1: out of memory \(asked for"):
        trainer.train_round(round_of(range(9), buffers=buffers, faults={4: fault}))
    assert not trainer.train_round(round_of(range(9), buffers=buffers)).failed
