"""What to try where memory is too little: before a run, by the estimate, and after it ran out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from fedunlearn import workspace
from fedunlearn.config import Experiment
from fedunlearn.errors import OutOfMemoryError
from fedunlearn.out_of_memory import naming_shortage
from fedunlearn.simulation.memory import Memory, memory_of, workers_on_one_device

SMALLER = "try a smaller model or smaller images"


def what_would_fit(experiment: Experiment, memory: Memory) -> str:
    """Say what to try where an experiment needs more memory than there is, in one line."""
    fitting, workers = memory.smaller_batch(), workers_on_one_device(experiment)
    advice = (
        f"train.batch-size = {memory.batch_size}: try {fitting}" if fitting else "no train.batch-size fits"
    )
    if workers > 1:
        return f"{advice}; lowering engine.workers = {workers} changes no result"
    return advice if fitting else f"{advice}; {SMALLER}"


@contextmanager
def advising(doing: str, experiment: Callable[[], Experiment]) -> Iterator[None]:
    """Say at what memory ran out, and what to try; see :func:`~fedunlearn.out_of_memory.naming_shortage`.

    Parameters
    ----------
    experiment
        Returns what is at work by then.
    """
    try:
        with naming_shortage(doing):
            yield
    except OutOfMemoryError as error:
        raise OutOfMemoryError(f"{error}; {remedy(experiment(), error)}", during=error.during) from error


def remedy(experiment: Experiment, error: OutOfMemoryError) -> str:
    """Return what to try after memory ran out, in one line.

    Parameters
    ----------
    error
        What it ran out at. Where it cannot be said any more what an experiment needs, a quarter of the batch
        is a guess.
    """
    workers, stack = workers_on_one_device(experiment), experiment.engine.batch_clients
    advice = _advice(experiment.train.batch_size, _measured(experiment), error.during)
    if stack > 1:
        advice += f"; or engine.batch-clients = {stack}: try {stack // 2}, likewise"
    if workers > 1:
        advice += f"; or engine.workers = {workers}: try {workers // 2}, which --resume accepts"
    return advice


def _advice(batch_size: int, memory: Memory | None, during: str) -> str:
    if during == "evaluation" and (memory is None or memory.evaluation >= memory.training()):
        return f"no setting lowers the number of images evaluated at once; {SMALLER}"
    if not during and (memory is None or memory.fits):
        return SMALLER
    if batch_size == 1:
        return f"train.batch-size = 1 is as small as a batch can be; {SMALLER}"
    fitting = (memory.smaller_batch() if memory is not None else None) or max(1, batch_size // 4)
    return (
        f"train.batch-size = {batch_size}: try {fitting}, which makes it another experiment that starts over"
    )


def _measured(experiment: Experiment) -> Memory | None:
    """Return the estimate, if there is memory enough left to make it."""
    if workspace.device_of(experiment).type == "cuda":
        torch.cuda.empty_cache()
    try:
        return memory_of(experiment)
    except Exception:  # whatever a lack of memory may still raise: the advice is the lesser thing to lose
        return None
