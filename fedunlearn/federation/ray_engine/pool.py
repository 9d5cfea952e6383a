"""Ray actors at work: whoever is free gets the next job, whoever dies is replaced."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from logging import WARNING
from typing import Any

import ray
from flwr.common.logger import log

from fedunlearn.errors import RunError, UserError
from fedunlearn.federation.ray_engine.actor import Duty, Place, RayWorker
from fedunlearn.federation.ray_engine.cluster import Cluster
from fedunlearn.federation.ray_engine.dispatcher import (
    ATTEMPTS,
    DEATHS,
    Job,
    Shift,
    Slot,
    Submit,
    in_one_line,
)
from fedunlearn.federation.ray_engine.shared_buffers import Parcel, pack

START_SECONDS = 120.0
"""So long workers may wait for a place in the cluster."""
PATIENT_SECONDS = 20.0
"""So long they wait before it is mentioned."""
LOOK_SECONDS = 5.0
"""So often, while no worker is left, the cluster is looked at for whether one will come."""


class ActorPool:
    """Actors of the same duty, one per slot.

    Parameters
    ----------
    cluster
        Where they live, and how many there are to be.
    duty
        Put into the object store once; what is large in it is not copied by workers on this machine.
    threads
        Threads of each worker's computation.

    Raises
    ------
    RunError
        Not all workers find a place in time, or a worker cannot take up its duty.
    UserError
        What keeps a worker from its duty is the user's input.
    """

    def __init__(self, cluster: Cluster, duty: Parcel, threads: int) -> None:
        self._cluster = cluster
        self._duty = ray.put(duty)
        self._threads = threads
        self._actor_class = ray.remote(RayWorker).options(
            num_cpus=cluster.need.cpus, num_gpus=cluster.need.gpus, max_restarts=0, max_task_retries=0
        )
        self._slots: list[Slot] = []
        self._failed_starts = 0
        try:
            self._start(cluster.workers)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        for slot in self._slots:
            ray.kill(slot.actor)
        self._slots.clear()

    def run(
        self, jobs: Iterable[Job], submit: Submit[Job], name: Callable[[Job], str] = str
    ) -> Iterator[tuple[Job, Any]]:
        """Do the jobs, started in the order given, and yield each with its result as it is done.

        The result of a job that keeps killing workers is a
        :class:`~fedunlearn.federation.ray_engine.dispatcher.Lost`.

        Raises
        ------
        RunError
            All workers have died, and no new one can start.
        """
        shift = Shift(self._slots, jobs, submit, name)
        while not shift.over:
            shift.hand_out()
            slot = self._next_news(shift)
            if slot.coming is not None:
                self._take_in(slot)
                continue
            job, result, dead = shift.read(slot)
            if dead:
                self._replace(slot)
            if result is None:
                continue
            shift.hand_out()  # the others go on while the caller looks at the result
            yield job, result

    def _next_news(self, shift: Shift[Any]) -> Slot:
        """Wait for a worker that is done with its job, or that has come."""
        coming = {slot.coming: slot for slot in self._slots if slot.coming is not None}
        busy = shift.awaited()
        if not busy:
            return coming[self._wait_for_any(list(coming))]
        expected = coming | busy
        (first, *_), _ = ray.wait(list(expected), num_returns=1)
        return expected[first]

    def _wait_for_any(self, coming: list[Any]) -> Any:
        """Wait for one of the new workers, while there are no others."""
        deadline = time.monotonic() + START_SECONDS
        while coming and time.monotonic() < deadline and self._cluster.room():
            done, _ = ray.wait(coming, num_returns=1, timeout=LOOK_SECONDS)
            if done:
                return done[0]
        raise RunError(
            "all Ray workers have died, and the cluster has no room for a new one: "
            f"each takes {self._cluster.need}; add nodes and resume the run"
        )

    # -- coming and going ---------------------------------------------------------------------------------

    def _spawn(self) -> Slot:
        actor: Any = self._actor_class.remote(self._threads)
        slot = Slot(actor, actor.set_up.remote(self._duty))
        self._slots.append(slot)
        return slot

    def _start(self, workers: int) -> None:
        slots = [self._spawn() for _ in range(workers)]
        placed = [slot.actor.__ray_ready__.remote() for slot in slots]
        found, missing = ray.wait(placed, num_returns=workers, timeout=PATIENT_SECONDS)
        if missing:
            log(WARNING, "%d of %d Ray workers are waiting for a place in the cluster", len(missing), workers)
            found, missing = ray.wait(placed, num_returns=workers, timeout=START_SECONDS - PATIENT_SECONDS)
        if missing:
            raise RunError(
                f"engine.workers = {workers}: {len(found)} of them found a place in the Ray cluster within "
                f"{START_SECONDS:g} s, as it is in use; use fewer, or wait until it is free"
            )
        for slot in slots:
            self._read(slot)

    def _read(self, slot: Slot) -> None:
        """Learn how a worker's first day went."""
        try:
            place: Place = ray.get(slot.coming)
        except DEATHS as error:
            raise RunError(
                f"a Ray worker cannot start: {in_one_line(error)}; is the same version of fedunlearn installed on "
                f"every node of the cluster?"
            ) from error
        if place.user_error:
            raise UserError(place.user_error)
        if place.failure:
            raise RunError(f"Ray worker {place} cannot start:\n{place.failure}")
        slot.place, slot.coming = place, None

    def _replace(self, slot: Slot) -> None:
        """Send for a new worker in the place of one that died."""
        if slot in self._slots:
            self._slots.remove(slot)
            ray.kill(slot.actor)  # of no effect, unless it is only out of reach
            self._spawn()

    def _take_in(self, slot: Slot) -> None:
        """Welcome a new worker. If it cannot work, send for another, but not without end."""
        try:
            self._read(slot)
        except RunError as error:
            self._failed_starts += 1
            log(WARNING, "%s", error)
            self._slots.remove(slot)
            if self._failed_starts < ATTEMPTS:
                self._spawn()
            elif not self._slots:
                raise
        else:
            self._failed_starts = 0


def pack_duty(duty: Duty) -> Parcel:
    """Pack what workers need to know.

    Raises
    ------
    UserError
        Something in it cannot be pickled.
    """
    try:
        return pack(duty)
    except Exception as error:
        raise UserError(
            f"the client app and the routine are sent to Ray workers, but cannot be pickled: {error}"
        ) from error
