"""Ray workers that die in the middle of a round: nobody but them is missed."""

import os
import signal
import threading
import time

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fedunlearn.errors import RunError, UserError
from fedunlearn.federation.grid import FIRST_CLIENT_NODE
from fedunlearn.federation.local_trainer import LocalTrainer
from fedunlearn.federation.payload import ModelState, pack
from fedunlearn.federation.ray import RayGrid
from fedunlearn.federation.ray_engine import dispatcher
from fedunlearn.federation.units import units_of
from fedunlearn.federation.worker import Unit
from tests.federation.ray_routines import (
    WITH_BUFFERS,
    RayRoutine,
    broken,
    round_of,
    set_trap,
    start_state,
    wrong,
)
from tests.federation.ray_sessions import own_ray
from tests.federation.test_ray_rounds import plain

APP = "tests.federation.ray_routines:app"
SHARE = 0.1  # of a CPU for each actor


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def session():
    with own_ray(cpus=1):
        yield


@pytest.fixture(scope="module")
def grid():
    with RayGrid(APP, 700, workers=2, routine=WITH_BUFFERS, cpus_per_worker=SHARE) as made:
        yield made


def local_round(work, routine=WITH_BUFFERS):
    return plain(LocalTrainer(routine).train_round(work))


class Hunter(threading.Thread):
    """Kills whoever falls into a trap."""

    def __init__(self, trap):
        super().__init__(daemon=True)
        self.trap = trap
        self.killed = []
        self.start()

    def run(self):
        prey = self.trap / "pid"
        with prey.open() as pipe:
            pid = int(pipe.read())
        os.kill(pid, signal.SIGKILL)
        self.killed.append(pid)


@pytest.mark.parametrize("clients", [range(12), range(0, 700, 2)], ids=["singly", "summed"])
def test_a_killed_worker_is_replaced_and_its_clients_done_again(grid, tmp_path, clients, caplog):
    trap = set_trap(tmp_path)
    hunter = Hunter(tmp_path)
    work = round_of(clients, forget=(3, 5), buffers=True)
    found = grid.trainer.train_round(
        round_of(clients, forget=(3, 5), buffers=True, trapped=clients[len(clients) // 2], **trap)
    )
    hunter.join(60)
    assert len(hunter.killed) == 1
    assert not found.failed
    assert plain(found) == local_round(work)
    deaths = [record for record in caplog.records if " died while busy with " in record.message]
    assert len(deaths) == 1
    assert "done again" in deaths[0].message
    again = round_of(clients, forget=(3, 5), buffers=True, number=2)
    assert plain(grid.trainer.train_round(again)) == local_round(again)


def test_a_client_that_kills_every_worker_fails_and_the_others_go_on(grid):
    clients, forget = range(8), (9, 10)
    found = grid.trainer.train_round(round_of(clients, forget=forget, buffers=True, deadly=[4]))
    assert list(found.failed) == [4]
    assert "3 Ray workers died, one after another, while they trained client 4" in found.failed[4]
    others = round_of([k for k in clients if k != 4], forget=forget, buffers=True)
    assert {**plain(found), "failed": []} == local_round(others)


def test_in_a_summed_block_only_the_one_whose_fault_it_is_fails(grid, monkeypatch):
    monkeypatch.setattr(dispatcher, "ATTEMPTS", 1)
    clients = sorted({*range(0, 700, 50), 151, 152})
    work = round_of(clients, forget=(7,), buffers=True, deadly=[7, 150])
    assert Unit((150, 151, 152)) in units_of(work, workers=2)
    found = grid.trainer.train_round(work)
    assert list(found.failed) == [7, 150]
    others = round_of([k for k in clients if k != 150], buffers=True)
    assert {**plain(found), "failed": []} == local_round(others)


def test_a_message_that_kills_its_worker_is_an_error_reply(grid, monkeypatch):
    monkeypatch.setattr(dispatcher, "ATTEMPTS", 1)
    content = RecordDict(
        {"arrays": pack(ModelState(start_state().vector)), "config": ConfigRecord({"deadly": [2]})}
    )
    sent = [Message(content, FIRST_CLIENT_NODE + client, "train") for client in range(4)]
    replies = {r.metadata.src_node_id - FIRST_CLIENT_NODE: r for r in grid.send_and_receive(sent)}
    assert sorted(replies) == [0, 1, 2, 3]
    assert [client for client, reply in replies.items() if reply.has_error()] == [2]
    assert "while they answered for client 2" in replies[2].error.reason


# -- workers that cannot even begin --------------------------------------------------------------------------


def test_a_routine_that_cannot_be_made_is_an_error_with_its_traceback():
    with pytest.raises(RunError, match=r"(?s)Traceback.*in broken.*no data today"):
        RayGrid(APP, 3, workers=1, routine=broken, cpus_per_worker=SHARE)


def test_wrong_input_is_told_in_one_line():
    with pytest.raises(UserError, match=r"^data.source = 'mist': must be one of mnist$"):
        RayGrid(APP, 3, workers=1, routine=wrong, cpus_per_worker=SHARE)


def test_what_cannot_be_sent_to_workers_is_an_error():
    lock = threading.Lock()
    with pytest.raises(UserError, match="cannot be pickled"):
        RayGrid(APP, 3, workers=1, routine=lambda: RayRoutine(asked=lock), cpus_per_worker=SHARE)


def test_when_nobody_is_left_the_run_stops(grid, monkeypatch):
    """Last, for it leaves the cluster empty: what comes of replacements is a matter of the cluster's room."""
    monkeypatch.setattr(grid._cluster, "room", lambda: 0)
    began = time.monotonic()
    with pytest.raises(RunError, match="all Ray workers have died, and the cluster has no room"):
        grid.trainer.train_round(round_of(range(4), deadly=range(4), buffers=True))
    assert time.monotonic() - began < 60
