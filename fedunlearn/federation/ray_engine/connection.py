"""How to get hold of a Ray: started on this machine with no more than actors need, or a running one."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import ray
from ray._private import ray_constants, services
from ray._private.node import Node

from fedunlearn.errors import UserError

QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
CONNECT_SECONDS = 10.0
STORE_BYTES = 4 << 30
SHARED_MEMORY = Path("/dev/shm")
LONGEST_FOLDER = 32
"""Ray puts sockets below its folder, whose paths may not be longer than 107 characters."""


def start(folder: str, *, cpus: int | None, gpus: int | None, content_bytes: int) -> None:
    """Start a Ray that listens on the loopback interface alone and reports to nobody.

    Parameters
    ----------
    folder
        Where it keeps sockets and logs.
    cpus, gpus
        How many it gives out; None: what the machine has.
    content_bytes
        What will lie in the object store all the time.
    """
    with _named_localhost(), _bare(), _no_advice():
        ray.init(
            address="local",
            num_cpus=cpus,
            num_gpus=gpus,
            object_store_memory=_store_bytes(content_bytes),
            include_dashboard=False,
            _temp_dir=folder,
            **QUIET,
        )


def connect(address: str) -> None:
    """Connect to a running cluster.

    Raises
    ------
    UserError
        There is none.
    """
    if address.startswith("ray://"):
        raise UserError(
            f'engine.ray.address = "{address}": Ray Client is not supported; run on a machine of the cluster and '
            f'give the address of its head node, as "10.0.0.1:6379"'
        )
    try:
        with _no_advice():
            if _answers(address):
                ray.init(address, **QUIET)
                return
            if address == "auto":
                raise ConnectionError("the Ray running here belongs to another program")
            # A cluster that listens on the loopback interface alone is not to be had by the machine's name.
            with _named_localhost():
                if not _answers(address):
                    raise ConnectionError("no Ray cluster answers there")
                ray.init(address, **QUIET)
    except (ConnectionError, RuntimeError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise UserError(
            f'engine.ray.address = "{address}": no Ray cluster can be reached ({why}); start one with '
            f'"ray start --head", or leave the address out to have Ray started here'
        ) from error


def short_folder() -> str:
    """Return the folder for temporary files, or another if its name is too long for Ray."""
    folder = tempfile.gettempdir()
    return folder if len(folder) <= LONGEST_FOLDER else "/tmp"


def _answers(address: str) -> bool:
    """Whether something like Ray listens there. ``ray.init`` would find out, too, after many minutes."""
    address = str(services.canonicalize_bootstrap_address(address))
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    if os.environ.get("RAY_USE_TLS") == "1":
        return True
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            return False
    return True


@contextmanager
def _named_localhost() -> Iterator[None]:
    """Let Ray call this machine 127.0.0.1, as it does on laptops: only then does it listen nowhere else."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _bare() -> Iterator[None]:
    """Let ``ray.init`` start what runs actors and nothing else, for which it has no option.

    The server behind the dashboard (of which, with the dashboard off, only usage statistics are left), the
    autoscaler's monitor and that of log files take seconds to start and 170 MB, for one run on one machine.
    """
    idle = {
        name: method
        for name in ("start_api_server", "start_monitor", "start_log_monitor")
        if (method := vars(Node).get(name)) is not None
    }
    for name in idle:
        setattr(Node, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, method in idle.items():
            setattr(Node, name, method)


@contextmanager
def _no_advice() -> Iterator[None]:
    """Keep Ray from telling what a later version will do about actors that ask for no GPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _store_bytes(content_bytes: int) -> int | None:
    """Return how large the object store may become; it takes memory only as it is filled.

    Beside what always lies there, a round needs room for the updates that are under way or wait for a smaller
    client number: :data:`STORE_BYTES`, or a quarter of the memory of a small machine. None: shared memory is
    scarce (as in a container), and Ray has its own way around that.
    """
    if not SHARED_MEMORY.is_dir():
        return None
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    wanted = content_bytes + min(STORE_BYTES, memory // 4)
    free = int(0.9 * shutil.disk_usage(SHARED_MEMORY).free)
    return wanted if wanted <= free else None
