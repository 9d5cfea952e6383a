"""Where a simulation keeps earlier rounds for methods that need them: the original's, read by all that fork from it.

Each kind of history has a store of its own, so that what one method finds never depends on which others there are.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from fedunlearn import plugins
from fedunlearn.config import Experiment, MethodConfig
from fedunlearn.runs.directory import RunDirectory
from fedunlearn.server.branch import Branch
from fedunlearn.server.history import History, Keeps


def kept_for(experiment: Experiment, branch: Branch) -> tuple[Keeps, ...]:
    """Return what a branch keeps for methods that fork from it: the original what any of them needs."""
    needed = map(_needed, experiment.methods) if branch.kind == "original" else ()
    return tuple(dict.fromkeys(keeps for keeps in needed if keeps is not None))


def archives(experiment: Experiment, branch: Branch, run: RunDirectory) -> list[History]:
    """Return the stores in which a branch keeps rounds for methods that fork from it."""
    forks = branch.keep | {branch.last_round}
    return [
        History(keeps, _store(run, branch.name, keeps), forks=forks) for keeps in kept_for(experiment, branch)
    ]


def opener(branch: Branch, run: RunDirectory) -> Callable[[Keeps], History]:
    """Return what opens the store of a branch for its own method, with the original's beneath."""

    def opened(keeps: Keeps) -> History:
        base = None if branch.fork_from is None else History(keeps, _store(run, branch.fork_from, keeps))
        return History(keeps, _store(run, branch.name, keeps), base=base, base_round=branch.first_round)

    return opened


def files_of(branch: str, run: RunDirectory) -> list[Path]:
    """Return the files of a branch's stores, in order."""
    return sorted(run.history(branch).rglob("*.safetensors"))


def account(experiment: Experiment, branch: Branch, run: RunDirectory) -> dict[str, int]:
    """Return how many files a finished branch keeps for others, as its record has it; nothing where it keeps none."""
    return {"history": len(files_of(branch.name, run))} if kept_for(experiment, branch) else {}


def discard(branch: str, run: RunDirectory) -> None:
    """Delete a branch's stores, if there are any."""
    shutil.rmtree(run.history(branch), ignore_errors=True)


def num_bytes(experiment: Experiment, num_parameters: int) -> int:
    """Return how many bytes the originals' stores take when they are complete."""
    federation = experiment.federation
    needed = {keeps for keeps in map(_needed, experiment.methods) if keeps is not None}
    rounds, seeds = experiment.train.rounds, len(experiment.seeds)
    return seeds * sum(
        keeps.num_bytes(rounds, federation.slots, federation.num_clients, num_parameters) for keeps in needed
    )


def _store(run: RunDirectory, branch: str, keeps: Keeps) -> Path:
    return run.history(branch) / keeps.name


def _needed(method: MethodConfig) -> Keeps | None:
    keeps: Keeps | None = plugins.find("strategies", method.name).needs(method.settings).keeps
    return keeps
