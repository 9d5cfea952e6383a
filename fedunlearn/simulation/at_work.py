"""What a simulation and a live federation on this machine do alike: choose the engine, record every round."""

from __future__ import annotations

from collections.abc import Callable

from fedunlearn import config, workspace
from fedunlearn.config import Experiment
from fedunlearn.runs.directory import RunDirectory
from fedunlearn.runs.round_metrics import round_metrics
from fedunlearn.server.branch import Branch
from fedunlearn.server.rounds import RoundReport
from fedunlearn.simulation.choice import choose
from fedunlearn.simulation.progress import Progress


def settled(
    asked: Experiment, run: RunDirectory, progress: Progress, examples: Callable[[], int] | None = None
) -> Experiment:
    """Choose what an experiment leaves to choose about its engine, note it in the run, and return the result.

    Parameters
    ----------
    examples
        See :func:`~fedunlearn.simulation.choice.choose`.
    """
    choice = choose(asked, before=config.load(run.experiment_path), examples=examples)
    if choice.why:
        progress.note(choice.why)
    run.settle(choice.experiment)
    workspace.experiment_at.cache_clear()  # the file may have been read as it was
    return choice.experiment


def recorder(run: RunDirectory, branch: Branch, progress: Progress) -> Callable[[RoundReport], None]:
    """Return what writes a round of a branch into the run's metrics, and tells who is watching."""

    def observe(report: RoundReport) -> None:
        run.metrics.append(round_metrics(branch.name, report))
        progress.round_done(branch, report.round, report.metrics)

    return observe
