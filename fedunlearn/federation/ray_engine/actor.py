"""What runs in a Ray worker process: one resident model and data, doing units of work and answering messages.

Nothing heavy is imported before :class:`RayWorker` has said how many threads it may take.
"""

from __future__ import annotations

import os
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedunlearn.federation.answers import RoundWork
    from fedunlearn.federation.client_trainer import RoutineFactory
    from fedunlearn.federation.ray_engine.shared_buffers import Parcel
    from fedunlearn.federation.worker import Unit, Worker

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Duty:
    """What a worker is there for; the same for all of them.

    Attributes
    ----------
    client_app
        Answers messages; a reference ("fedunlearn.clients.app:app") is imported where and when it is needed.
    routine
        Trains rounds; called once.
    batch_clients
        How many clients are trained in one stack.
    """

    client_app: Any
    routine: RoutineFactory | None
    batch_clients: int


@dataclass(frozen=True)
class Place:
    """Where a worker is, once it is ready; or why it is not.

    Attributes
    ----------
    node : str
        Ray's id of the machine.
    pid : int
    gpus : tuple[str, ...]
        Ids of the GPUs it sees, as Ray numbers them.
    failure : str
        Traceback of what went wrong on its first day; empty if nothing did.
    user_error : str
        The message alone, where the user's input is what is wrong.
    """

    node: str
    pid: int
    gpus: tuple[str, ...]
    failure: str = ""
    user_error: str = ""

    def __str__(self) -> str:
        return f"{self.pid} on node {self.node[:8]}"


class RayWorker:
    """A slot of the Ray engine; becomes a Ray actor in :mod:`~fedunlearn.federation.ray_engine.pool`.

    Parameters
    ----------
    threads
        Threads for a client's computation.
    """

    def __init__(self, threads: int) -> None:
        os.environ.update(dict.fromkeys(THREADS, str(threads)))
        import torch

        torch.set_num_threads(threads)

    def set_up(self, parcel: Parcel) -> Place:
        """Unpack the duty and build the routine. What goes wrong is told, not raised: it may not be picklable."""
        import ray

        from fedunlearn.errors import UserError
        from fedunlearn.federation.compat import ensure_task_identity
        from fedunlearn.federation.ray_engine.shared_buffers import unpack
        from fedunlearn.federation.worker import Worker

        ensure_task_identity()
        context = ray.get_runtime_context()
        place = Place(context.get_node_id(), os.getpid(), tuple(context.get_accelerator_ids().get("GPU", ())))
        try:
            self._duty: Duty = unpack(parcel)
            self._worker: Worker | None = None
            if self._duty.routine is not None:
                self._worker = Worker(self._duty.routine(), self._duty.batch_clients)
        except UserError as error:
            return Place(place.node, place.pid, place.gpus, traceback.format_exc(), str(error))
        except Exception:
            return Place(place.node, place.pid, place.gpus, traceback.format_exc())
        self._app = self._duty.client_app
        self._round: tuple[int, RoundWork] | None = None
        return place

    def train(self, number: int, parcel: Parcel, unit: Unit) -> Parcel:
        """Do a unit of the round with this number; return its answers and the seconds it took."""
        from fedunlearn.federation.ray_engine.shared_buffers import pack, unpack

        assert self._worker is not None
        began = time.perf_counter()
        device = self._worker.routine.model.vector.device
        if self._round is None or self._round[0] != number:
            work: RoundWork = unpack(parcel, device=device)
            # On a GPU the weights are the worker's own copy, and serve the whole round. On the CPU they are a
            # window into the object store, which must close so that the memory can be used again.
            self._round = (number, work) if device.type == "cuda" else None
        else:
            work = self._round[1]
        answers = self._worker.do(work, unit)
        return pack((answers, time.perf_counter() - began))

    def answer(self, parcel: Parcel, *apart: Parcel) -> Parcel:
        """Answer a message; return the reply, the client's state after it, and the seconds it took."""
        from fedunlearn.federation.grid import answer
        from fedunlearn.federation.ray_engine.shared_buffers import pack, unpack
        from fedunlearn.plugins import load_object

        began = time.perf_counter()
        message, context = unpack(parcel, others=[unpack(other) for other in apart])
        if isinstance(self._app, str):
            self._app = load_object(self._app)
        reply = answer(self._app, message, context)
        return pack((reply, context.state, time.perf_counter() - began))
