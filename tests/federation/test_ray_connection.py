"""Where there is no Ray, or not enough of it, the user is told so at once."""

import socket
import tempfile
from pathlib import Path

import pytest
import ray

from fedunlearn.errors import UserError
from fedunlearn.federation.ray import RayGrid
from fedunlearn.federation.ray_engine import connection
from fedunlearn.federation.ray_engine.cluster import Need, fitting


@pytest.mark.parametrize(
    ("resources", "need", "workers"),
    [
        ({"CPU": 4}, (1, 0), 4),
        ({"CPU": 4}, (3, 0), 1),
        ({"CPU": 1}, (0.1, 0), 10),
        ({"CPU": 2.5}, (0.5, 0), 5),
        ({}, (1, 0), 0),
        ({"CPU": 64}, (1, 1), 0),
        ({"CPU": 64, "GPU": 4}, (1, 1), 4),
        ({"CPU": 2, "GPU": 4}, (1, 1), 2),
        ({"CPU": 64, "GPU": 4}, (1, 2), 2),
        ({"CPU": 64, "GPU": 2}, (1, 0.5), 4),
        ({"CPU": 64, "GPU": 2}, (1, 0.3), 6),
        ({"CPU": 64, "GPU": 2}, (1, 0.6), 2),
        ({"CPU": 64, "GPU": 1.5}, (1, 0.5), 3),
    ],
)
def test_how_many_workers_a_node_holds(resources, need, workers):
    """A worker's share of a GPU is not put together from two."""
    assert fitting(resources, Need(*need)) == workers


def test_an_address_where_nobody_listens():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(
            UserError, match=rf'^engine.ray.address = "{address}": no Ray cluster can be reached'
        ):
            RayGrid("x:y", 3, workers=1, address=address)
    assert not ray.is_initialized()


def test_auto_where_the_ray_that_runs_does_not_answer(monkeypatch):
    """As one that another program has started for itself: Ray would go on trying for minutes."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(UserError, match=r'^engine.ray.address = "auto": .+ another program'):
            RayGrid("x:y", 3, workers=1, address="auto")


def test_an_address_where_somebody_else_listens(monkeypatch):
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(UserError, match='start one with "ray start --head"'):
            RayGrid("x:y", 3, workers=1, address=address)


@pytest.mark.parametrize("address", ["nonsense", "ray://127.0.0.1:10001"])
def test_what_is_no_address(address):
    with pytest.raises(UserError, match=f'^engine.ray.address = "{address}"'):
        RayGrid("x:y", 3, workers=1, address=address)


@pytest.mark.slow
def test_a_ray_of_one_s_own_gives_out_what_it_is_told_and_listens_to_this_machine_alone(monkeypatch):
    told = {}
    monkeypatch.setattr(ray, "init", lambda **options: told.update(options))
    monkeypatch.setattr(connection, "_store_bytes", lambda content: content + 1)
    connection.start("/short", cpus=3, gpus=2, content_bytes=10)
    assert told == {
        "address": "local",
        "num_cpus": 3,
        "num_gpus": 2,
        "object_store_memory": 11,
        "include_dashboard": False,
        "_temp_dir": "/short",
        **connection.QUIET,
    }


def test_ray_s_folder_is_short_and_the_store_no_larger_than_shared_memory(monkeypatch, tmp_path):
    long = tmp_path / ("x" * connection.LONGEST_FOLDER)
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert connection.short_folder() == "/tmp"
    assert connection._store_bytes(1 << 60) is None
    monkeypatch.setattr(connection, "SHARED_MEMORY", tmp_path)
    small, large = connection._store_bytes(0), connection._store_bytes(1000)
    assert small is None or large == small + 1000 <= connection.STORE_BYTES + 1000
    monkeypatch.setattr(connection, "SHARED_MEMORY", Path("/nowhere"))
    assert connection._store_bytes(0) is None
