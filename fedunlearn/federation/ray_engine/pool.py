"""Ray actors at work: whoever is free gets the next job, whoever dies is replaced and its jobs done again."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from logging import WARNING
from typing import Any, Generic, TypeVar

import ray
from flwr.common.logger import log
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    WorkerCrashedError,
)

from fedunlearn.errors import RunError, UserError
from fedunlearn.federation.ray_engine.actor import Duty, Place, RayWorker
from fedunlearn.federation.ray_engine.cluster import Cluster
from fedunlearn.federation.ray_engine.parcel import Parcel, pack

Job = TypeVar("Job", bound=Hashable)
Submit = Callable[[Any, Job], Any]
"""Hand a job to an actor, and return Ray's reference to its result."""

DEATHS = (NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError, WorkerCrashedError)
ATTEMPTS = 3
"""A job in whose hands so many workers have died, one after the other, is given up."""
START_SECONDS = 120.0
"""So long workers may wait for a place in the cluster."""
PATIENT_SECONDS = 20.0
"""So long they wait before it is mentioned."""
LOOK_SECONDS = 5.0
"""So often, while no worker is left, the cluster is looked at for whether one will come."""


@dataclass(frozen=True)
class Lost:
    """What came of a job that kills its workers.

    Attributes
    ----------
    workers : int
        How many died of it, one after the other.
    why : str
        What Ray says of the last death.
    """

    workers: int
    why: str

    def while_they(self, did: str) -> str:
        """Return the error message."""
        dead = f"{self.workers} Ray worker{'s' * (self.workers != 1)}"
        return f"{dead} died, one after the other, while they {did}; the last: {self.why}"


@dataclass(eq=False)
class _Slot:
    """A worker's place, and who holds it."""

    actor: Any
    ready: Any  # reference to its Place; None once it has been read


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
        self._slots: list[_Slot] = []
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

    def run(self, jobs: Iterable[Job], submit: Submit[Job]) -> Iterator[tuple[Job, Any]]:
        """Do the jobs, started in the order given, and yield each with its result as it is done.

        The result of a job is a :class:`Lost` if :data:`ATTEMPTS` workers in a row have died of it.

        Raises
        ------
        RunError
            All workers have died, and no new one can start.
        """
        shift = _Shift(self._slots, deque(jobs), submit)
        while not shift.over:
            shift.hand_out()
            slot = self._next_news(shift)
            if slot.ready is not None:
                self._take_in(slot)
                continue
            job, result, dead = shift.read(slot)
            if dead:
                self._replace(slot)
            if result is None:
                continue
            shift.hand_out()  # the others go on while the caller looks at the result
            yield job, result

    def _next_news(self, shift: _Shift[Any]) -> _Slot:
        """Wait for a worker that is done with its job, or that has come."""
        coming = {slot.ready: slot for slot in self._slots if slot.ready is not None}
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

    def _spawn(self) -> _Slot:
        actor: Any = self._actor_class.remote(self._threads)
        slot = _Slot(actor, actor.set_up.remote(self._duty))
        self._slots.append(slot)
        return slot

    def _start(self, workers: int) -> None:
        slots = [self._spawn() for _ in range(workers)]
        placed = [slot.actor.__ray_ready__.remote() for slot in slots]
        found, missing = ray.wait(placed, num_returns=workers, timeout=PATIENT_SECONDS)
        if missing:
            log(WARNING, "%d of %d Ray workers wait for a place in the cluster", len(missing), workers)
            found, missing = ray.wait(placed, num_returns=workers, timeout=START_SECONDS - PATIENT_SECONDS)
        if missing:
            raise RunError(
                f"engine.workers = {workers}: {len(found)} of them found a place in the Ray cluster within "
                f"{START_SECONDS:g} s, others are using it; ask for fewer, or wait until it is free"
            )
        for slot in slots:
            self._read(slot)

    def _read(self, slot: _Slot) -> None:
        """Learn how a worker's first day went."""
        try:
            place: Place = ray.get(slot.ready)
        except DEATHS as error:
            raise RunError(
                f"a Ray worker cannot start: {_in_one_line(error)}; is fedunlearn installed on every node of the "
                f"cluster, in the same version?"
            ) from error
        if place.user_error:
            raise UserError(place.user_error)
        if place.failure:
            raise RunError(f"a Ray worker on node {place.node[:8]} cannot take up its duty:\n{place.failure}")
        slot.ready = None

    def _replace(self, slot: _Slot) -> None:
        """Send for a new worker in the place of one that died."""
        if slot in self._slots:
            self._slots.remove(slot)
            ray.kill(slot.actor)  # of no effect, unless it is only out of reach
            self._spawn()

    def _take_in(self, slot: _Slot) -> None:
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


class _Shift(Generic[Job]):
    """The jobs of one run: those in the queue, and those in the hands of workers."""

    def __init__(self, slots: list[_Slot], queue: deque[Job], submit: Submit[Job]) -> None:
        self._slots = slots
        self._queue = queue
        self._submit = submit
        self._hands: dict[_Slot, deque[tuple[Any, Job]]] = {}  # in the order in which they are done
        self._deaths: Counter[Job] = Counter()

    @property
    def over(self) -> bool:
        return not self._queue and not self._hands

    def hand_out(self) -> None:
        """Give every idle worker a job, and busy ones a second to go on with at once.

        The last jobs of all are not queued behind others: whoever is free first takes them.
        """
        ready = [slot for slot in self._slots if slot.ready is None]
        for most, reserve in ((1, 0), (2, len(ready))):
            for slot in ready:
                if len(self._hands.get(slot, ())) < most and len(self._queue) > reserve:
                    job = self._queue.popleft()
                    self._hands.setdefault(slot, deque()).append((self._submit(slot.actor, job), job))

    def awaited(self) -> dict[Any, _Slot]:
        """Return the references to the jobs being done now."""
        return {jobs[0][0]: slot for slot, jobs in self._hands.items()}

    def read(self, slot: _Slot) -> tuple[Job, Any, bool]:
        """Return the job a worker is done with, its result, and whether the worker is dead.

        There is no result if the job is to be done again.
        """
        jobs = self._hands.pop(slot)
        reference, job = jobs.popleft()
        try:
            result = ray.get(reference)
        except DEATHS as error:
            why = _in_one_line(error)
            self._queue.extendleft(job for _, job in reversed(jobs))  # none of them was begun
            self._deaths[job] += 1
            given_up = self._deaths[job] == ATTEMPTS
            what = "given up" if given_up else "done again"
            log(WARNING, "a Ray worker died (%s) while busy with %s, which is %s", why, job, what)
            if given_up:
                return job, Lost(ATTEMPTS, why), True
            if self._deaths[job] == 1:
                self._queue.appendleft(job)
            else:
                self._queue.append(job)  # if it is the job that kills, let the living do the rest first
            return job, None, True
        if jobs:
            self._hands[slot] = jobs
        return job, result, False


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
            f"the client app and the routine travel to Ray workers, and cannot be pickled: {error}"
        ) from error


def _in_one_line(error: Exception) -> str:
    """Return the telling part of Ray's many lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("The actor died unexpectedly", *_DETAILS))]
    return (telling or lines or [type(error).__name__])[0]


_DETAILS = ("class_name:", "actor_id:", "pid:", "name:", "namespace:", "ip:")
