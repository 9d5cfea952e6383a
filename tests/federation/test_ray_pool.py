"""When all workers have died, a new one is waited for while there may be one."""

from types import SimpleNamespace

import pytest

from fedunlearn.errors import RunError
from fedunlearn.federation.ray_engine import pool as module
from fedunlearn.federation.ray_engine.pool import START_SECONDS, ActorPool


@pytest.fixture
def looks(monkeypatch):
    """Return the looks for a worker so far, each of which takes its time; the fourth finds one."""
    found = []

    def wait(coming, *, num_returns, timeout):
        found.append(timeout)
        return (coming[-1:], coming[:-1]) if len(found) == 4 else ([], coming)

    monkeypatch.setattr(module, "ray", SimpleNamespace(wait=wait))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 1e6 + sum(found)))
    return found


def waiting(coming, room=lambda: True):
    pool = object.__new__(ActorPool)
    pool._cluster = SimpleNamespace(room=room, need="1 CPU")
    return pool._wait_for_any(coming)


def test_one_that_comes_later_is_taken(looks):
    assert waiting(["one", "another"]) == "another"
    assert len(looks) == 4


@pytest.mark.parametrize(("coming", "room"), [([], True), (["one"], False)])
def test_where_there_can_be_none_the_run_stops_at_once(looks, coming, room):
    with pytest.raises(RunError, match="no room for a new one: each takes 1 CPU"):
        waiting(coming, lambda: room)
    assert looks == []


def test_nobody_is_waited_for_longer_than_a_start_takes(looks, monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", START_SECONDS / 2)
    with pytest.raises(RunError, match="resume the run"):
        waiting(["one"])
    assert len(looks) == 2


def test_workers_that_do_not_all_find_a_place_are_given_back(monkeypatch):
    killed, actors = [], []

    class Actor:
        set_up = __ray_ready__ = SimpleNamespace(remote=lambda *_: object())

        def __init__(self):
            actors.append(self)

    made = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda threads: Actor()))
    ray = SimpleNamespace(
        put=lambda duty: duty,
        remote=lambda kind: made,
        wait=lambda placed, **_: (placed[:1], placed[1:]),
        kill=killed.append,
    )
    monkeypatch.setattr(module, "ray", ray)
    cluster = SimpleNamespace(need=SimpleNamespace(cpus=1, gpus=0), workers=3)
    with pytest.raises(RunError, match=r"engine\.workers = 3: 1 of them found a place"):
        ActorPool(cluster, "duty", 1)
    assert killed == actors and len(killed) == 3
