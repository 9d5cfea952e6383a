"""The direct way to train a round in this process: resident workers, no message per client."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

from fedunlearn.federation.answers import FORGET, Answers, RoundWork
from fedunlearn.federation.client_trainer import RoutineFactory
from fedunlearn.federation.sums import BlockSum, Contribution, OrderedSum
from fedunlearn.federation.units import in_placing_order, units_of
from fedunlearn.federation.worker import Unit, Worker
from fedunlearn.out_of_memory import stop_if_out_of_memory


class LocalTrainer:
    """Train rounds with the worker threads of this process.

    With one worker, clients are trained in the caller's thread, and in memory there is one model, one sum and
    one update, however many clients there are.

    Parameters
    ----------
    make_routine
        Called once in each worker's thread.
    workers
        Number of worker threads, ≥ 1.
    batch_clients
        How many clients a worker trains in one stack, ≥ 1; more than 1 only under ``numerics = "fast"``.
    """

    def __init__(self, make_routine: RoutineFactory, *, workers: int = 1, batch_clients: int = 1) -> None:
        self._make_routine = make_routine
        self._workers = workers
        self._batch_clients = batch_clients
        self._thread = threading.local()
        self._seconds: dict[int, float] = {}
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="trainer") if workers > 1 else None

    def close(self) -> None:
        """Stop the worker threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def train_round(self, work: RoundWork) -> Answers:
        """Train all clients of the round."""
        units = units_of(work, self._workers, self._batch_clients)
        return gathered(work, self._done(work, units))

    def _done(self, work: RoundWork, units: list[Unit]) -> Iterator[tuple[Unit, Answers]]:
        if self._pool is None:
            for unit in units:
                yield unit, self._do(work, unit)
            return
        ordered = in_placing_order(units, self._seconds, work.state.num_bytes)
        futures = {self._pool.submit(self._do, work, unit): unit for unit in ordered}
        try:
            for future in as_completed(futures):
                yield futures.pop(future), future.result()
        finally:
            for future in futures:
                future.cancel()

    def _do(self, work: RoundWork, unit: Unit) -> Answers:
        began = time.perf_counter()
        worker: Worker | None = getattr(self._thread, "worker", None)
        if worker is None:
            worker = self._thread.worker = Worker(self._make_routine(), self._batch_clients)
        answers = worker.do(work, unit)
        each = (time.perf_counter() - began) / len(unit.clients)
        self._seconds |= dict.fromkeys(unit.clients, each)
        return answers


def gathered(work: RoundWork, done: Iterable[tuple[Unit, Answers]]) -> Answers:
    """Put a round's answers together from those of its units, which may be done in any order.

    Used alike by every engine: whoever trained a unit, its updates are added up in the same order.

    Raises
    ------
    OutOfMemoryError
        If a client failed for want of memory, unless the round's work is tolerant: the others will, too.
    """
    ordered = OrderedSum(work.train)
    singles: list[Contribution] = []
    answers = Answers(singles if work.individually else ordered.sum)
    for unit, part in done:
        if not work.tolerant:
            stop_if_out_of_memory(part.failed, work.config["round"])
        answers.failed |= part.failed
        answers.losses |= part.losses
        answers.norms |= part.norms
        answers.tallies |= part.tallies
        answers.extras |= part.extras
        if unit.kind == FORGET:
            answers.forgetting += part.forgetting
        elif isinstance(part.retained, BlockSum):
            ordered.put_sum(unit.clients, part.retained)
        elif work.individually:
            singles += part.retained
        else:
            arrived = {update.client: update for update in part.retained}
            for client in unit.clients:
                ordered.put(client, arrived.get(client))
    return answers.sort()
