"""One run of jobs on Ray actors: who has which in hand, what is done again because its worker died."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from logging import WARNING
from typing import Any, Generic, TypeVar

import ray
from flwr.common.logger import log
from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError, WorkerCrashedError

from fedunlearn.federation.ray_engine.actor import Place
from fedunlearn.plurals import counted

Job = TypeVar("Job", bound=Hashable)
Submit = Callable[[Any, Job], Any]
"""Hand a job to an actor, and return Ray's reference to its result."""

DEATHS = (NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError, WorkerCrashedError)
ATTEMPTS = 3
"""A job of which so many workers have died, one after the other, is given up."""


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
        dead = counted(self.workers, "Ray worker")
        return f"{dead} died, one after another, while they {did}; the last: {self.why}"


@dataclass(eq=False)
class Slot:
    """A worker's place, and who holds it.

    Attributes
    ----------
    actor
        Ray's handle of the worker.
    coming
        Ray's reference to its :class:`Place`; None once it is known, and the worker can be given work.
    place : Place or None
    """

    actor: Any
    coming: Any
    place: Place | None = None


class Shift(Generic[Job]):
    """The jobs of one run: those in the queue, and those in the hands of workers.

    Parameters
    ----------
    slots
        The pool's workers, as they come and go.
    jobs
        In the order in which they are to be started.
    submit
        Hands a job to an actor.
    name
        What to call a job in messages.
    """

    def __init__(
        self, slots: list[Slot], jobs: Iterable[Job], submit: Submit[Job], name: Callable[[Job], str] = str
    ) -> None:
        self._slots = slots
        self._queue = deque(jobs)
        self._submit = submit
        self._name = name
        self._hands: dict[Slot, deque[tuple[Any, Job]]] = {}  # in the order in which they are done
        self._deaths: Counter[Job] = Counter()

    @property
    def over(self) -> bool:
        """Whether all jobs are done."""
        return not self._queue and not self._hands

    def hand_out(self) -> None:
        """Give every idle worker a job, and busy ones a second to go on with at once.

        The last jobs of all are not queued behind others: whoever is free first takes them. Nor are jobs that
        a worker may have died of, so that the next death shows which of two it was.
        """
        here = [slot for slot in self._slots if slot.coming is None]
        for slot in here:
            if slot not in self._hands and self._queue:
                self._give(slot)
        for slot in here:
            if len(self._queue) > len(here) and len(self._hands[slot]) == 1:
                _, busy_with = self._hands[slot][0]
                if not self._deaths[busy_with] and not self._deaths[self._queue[0]]:
                    self._give(slot)

    def _give(self, slot: Slot) -> None:
        job = self._queue.popleft()
        self._hands.setdefault(slot, deque()).append((self._submit(slot.actor, job), job))

    def awaited(self) -> dict[Any, Slot]:
        """Return the references to the jobs being done now."""
        return {jobs[0][0]: slot for slot, jobs in self._hands.items()}

    def read(self, slot: Slot) -> tuple[Job, Any, bool]:
        """Return the job a worker is done with, its result, and whether the worker is dead.

        There is no result if the job is to be done again.
        """
        jobs = self._hands.pop(slot)
        reference, job = jobs.popleft()
        try:
            result = ray.get(reference)
        except DEATHS as error:
            return job, self._after_death(slot, [job, *(job for _, job in jobs)], in_one_line(error)), True
        if jobs:
            self._hands[slot] = jobs
        return job, result, False

    def _after_death(self, slot: Slot, suspects: list[Job], why: str) -> Lost | None:
        """Put the jobs that a worker had in hand back into the queue, or give the one up that keeps killing.

        Of two, it may have been the second: the first may be done, its result on the way.
        """
        self._deaths.update(suspects)
        deaths = self._deaths[suspects[0]]
        given_up = len(suspects) == 1 and deaths >= ATTEMPTS
        log(
            WARNING,
            "Ray worker %s died while busy with %s, which is %s: %s",
            slot.place,
            " or ".join(map(self._name, suspects)),
            "given up" if given_up else "done again",
            why,
        )
        if given_up:
            return Lost(deaths, why)
        if deaths == 1:
            self._queue.extendleft(reversed(suspects))
        else:
            self._queue.extend(suspects)  # if it is the job that kills, let the living do the rest first
        return None


def in_one_line(error: Exception) -> str:
    """Return the telling part of Ray's many lines."""
    details = (
        "class_name:",
        "actor_id:",
        "pid:",
        "name:",
        "namespace:",
        "ip:",
        "The actor died unexpectedly",
    )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(details)]
    line = (telling or lines or [type(error).__name__])[0]
    if isinstance(error, OutOfMemoryError):
        return f"out of memory according to Ray: {line}"
    crash, among_others, _ = line.partition(" Some common causes include")
    _, found, detail = crash.partition("Worker exit detail: ")
    if found:
        crash = detail
    return f"{crash} Out of memory, killed, or crashed." if among_others else crash
