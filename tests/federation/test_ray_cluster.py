"""More than one place: shares of GPUs, and two real Ray nodes, of which one is lost."""

import os
import threading

import pytest
import ray
from flwr.app import Message, RecordDict
from ray.cluster_utils import Cluster

from fedunlearn.errors import UserError
from fedunlearn.federation.grid import FIRST_CLIENT_NODE
from fedunlearn.federation.ray import RayGrid
from fedunlearn.federation.ray_engine import cluster as module
from tests.federation.ray_routines import WITH_BUFFERS, round_of, set_trap
from tests.federation.ray_sessions import own_ray
from tests.federation.test_ray_deaths import APP, local_round
from tests.federation.test_ray_rounds import plain


@pytest.mark.parametrize(("workers", "expected"), [(None, 1), (3, 3)])
def test_of_a_cluster_in_use_what_is_free_is_taken_unless_a_number_is_asked_for(
    workers, expected, monkeypatch
):
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 4.0}}])
    monkeypatch.setattr(module, "available_resources_per_node", lambda: {"node": {"CPU": 1.0}})
    assert module.Cluster(None, module.Need(1, 0), workers, 0).workers == expected
    with pytest.raises(UserError, match=r"engine.workers = 5: .* has room for 4 workers"):
        module.Cluster(None, module.Need(1, 0), 5, 0)


@pytest.mark.slow
def test_two_workers_share_a_gpu_and_see_no_other():
    """GPUs are logical here: Ray hands them out, and the routine computes on the CPU."""
    with (
        own_ray(cpus=1, gpus=2),
        RayGrid(APP, 40, routine=WITH_BUFFERS, cpus_per_worker=0.1, gpus_per_worker=0.5) as grid,
    ):
        assert grid.workers == 4
        work = round_of(range(12), forget=(20,), buffers=True)
        assert plain(grid.trainer.train_round(work)) == local_round(work)
        sent = [Message(RecordDict(), FIRST_CLIENT_NODE + k, "query.place") for k in range(40)]
        seen = {}
        for reply in grid.send_and_receive(sent):
            seen[reply.content["metrics"]["pid"]] = reply.content["config"]["gpus"]
        assert set(seen.values()) <= {"0", "1"}
        assert len(seen) > 1, "more than one worker answers"
        with pytest.raises(UserError, match=r"engine.workers = 5: .* has room for 4 workers"):
            RayGrid(APP, 40, workers=5, cpus_per_worker=0.1, gpus_per_worker=0.5)


@pytest.fixture
def cluster():
    node = {"num_cpus": 1, "object_store_memory": 200 << 20, "node_ip_address": "127.0.0.1"}
    made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        made.add_node(**node)
        made.wait_for_nodes()
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


class Storm(threading.Thread):
    """Takes a node away, without a word to it, once somebody there is in the trap."""

    def __init__(self, trap, cluster):
        super().__init__(daemon=True)
        self.trap = trap
        self.cluster = cluster
        self.victim = None
        self.start()

    def run(self):
        with (self.trap / "pid").open() as pipe:
            self.victim = int(pipe.read())
        (far,) = self.cluster.worker_nodes
        self.cluster.remove_node(far, allow_graceful=False)


@pytest.mark.slow
def test_a_federation_on_two_nodes_has_the_same_bits_and_survives_the_loss_of_one(cluster, tmp_path):
    with RayGrid(APP, 300, routine=WITH_BUFFERS, address=cluster.address) as grid:
        assert grid.workers == 2
        work = round_of(range(0, 300, 7), forget=(1,), buffers=True)
        assert plain(grid.trainer.train_round(work)) == local_round(work)
        home = cluster.head_node.node_id
        trap = {**set_trap(tmp_path), "home": home}
        storm = Storm(tmp_path, cluster)
        found = grid.trainer.train_round(round_of(range(0, 300, 7), forget=(1,), buffers=True, **trap))
        storm.join(60)
        assert storm.victim not in (None, os.getpid())
        assert not cluster.worker_nodes
        assert not found.failed
        assert plain(found) == local_round(work)
        again = round_of(range(12), buffers=True, number=2)
        assert plain(grid.trainer.train_round(again)) == local_round(again), "one worker goes on alone"
