"""The machines that Ray has for a run: started for it, or somebody's cluster that it is a guest of."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Mapping
from typing import NamedTuple

import ray
from ray._private.state import available_resources_per_node

from fedunlearn.errors import UserError
from fedunlearn.federation.ray_engine.connection import connect, short_folder, start
from fedunlearn.plurals import counted


class Need(NamedTuple):
    """What one worker takes of a cluster."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.cpus:g} CPU{'s' * (self.cpus != 1)} and {self.gpus:g} GPU{'s' * (self.gpus != 1)}"


class Cluster:
    """A connection to Ray.

    Parameters
    ----------
    address
        Of a running cluster. None: the Ray that this process is connected to; if there is none, one is started
        on this machine, reachable over the loopback interface alone.
    need
        What one worker takes.
    workers
        How many there will be; None: as many as fit. A Ray that is started has room for just so many.
    content_bytes
        What will lie in the object store all the time.

    Attributes
    ----------
    workers : int
        How many there will be.

    Raises
    ------
    UserError
        There is no cluster at the address, or it has no room for so many workers.
    """

    def __init__(self, address: str | None, need: Need, workers: int | None, content_bytes: int) -> None:
        self.need = need
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._connected = not ray.is_initialized()
        if self._connected and address is not None:
            connect(address)
        elif self._connected:
            self._folder = tempfile.TemporaryDirectory(
                prefix="fr-", dir=short_folder(), ignore_cleanup_errors=True
            )
            start(
                self._folder.name,
                cpus=None if workers is None else math.ceil(workers * need.cpus),
                gpus=None if need.gpus else 0,
                content_bytes=content_bytes,
            )
        try:
            self.workers = self._checked(workers)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the Ray that was started, or leave the cluster; a connection that was there before stays."""
        if not self._connected:
            return
        self._connected = False
        ray.shutdown()
        if self._folder is not None:
            # Ray's processes may be writing their last words.
            shutil.rmtree(self._folder.name, ignore_errors=True)
            self._folder.cleanup()

    def room(self, *, free: bool = False) -> int:
        """Return how many workers the living nodes can hold: in all, or beside what is there already."""
        if free:
            nodes = available_resources_per_node().values()  # type: ignore[no-untyped-call]
        else:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        return sum(fitting(node, self.need) for node in nodes)

    def _checked(self, workers: int | None) -> int:
        room = self.room(free=workers is None)
        if room < (workers or 1):
            asked = "a Ray worker" if workers is None else f"engine.workers = {workers}"
            raise UserError(
                f"{asked}: the Ray cluster has room for {counted(room, 'worker')} of {self.need} each; use "
                f"fewer, set engine.ray.cpus-per-worker or gpus-per-worker lower, or add nodes"
            )
        return room if workers is None else workers


def fitting(resources: Mapping[str, float], need: Need) -> int:
    """Return how many workers a node with these resources holds; a share of a GPU is of one and the same."""
    rounding = 1e-6
    fit = math.floor(resources.get("CPU", 0) / need.cpus + rounding)
    if need.gpus:
        gpus = resources.get("GPU", 0)
        if need.gpus < 1:
            each = math.floor(1 / need.gpus + rounding)
            fit = min(fit, int(gpus) * each + math.floor(gpus % 1 / need.gpus + rounding))
        else:
            fit = min(fit, math.floor(gpus / need.gpus + rounding))
    return fit
