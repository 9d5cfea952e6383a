"""Run a live federation on this machine: its clients are virtual, its requests, ledger and certificates are real."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fedunlearn import workspace
from fedunlearn.certificates.issuer import Clerk
from fedunlearn.certificates.keys import find_key
from fedunlearn.config import Experiment
from fedunlearn.federation.hosted_routine import check_routines
from fedunlearn.live.evaluation import evaluation_of
from fedunlearn.live.service import serve_live
from fedunlearn.requests import LIVE_BRANCH
from fedunlearn.runs.directory import RunDirectory
from fedunlearn.server.branch import live_branch
from fedunlearn.simulation.at_work import recorder, settled
from fedunlearn.simulation.capped_rounds import check_cap
from fedunlearn.simulation.engines import open_grid
from fedunlearn.simulation.progress import Progress
from fedunlearn.simulation.routine_needs import check_models
from fedunlearn.simulation.shortage import advising


def run_live(
    experiment: Experiment,
    *,
    out: Path,
    resume: bool = False,
    fresh: bool = False,
    progress: Progress | None = None,
    key: Path | None = None,
    **service: Any,
) -> Path:
    """Run a live federation until ``train.rounds`` are done and no request is open; return the run directory.

    Meanwhile, and afterwards, ``fedunlearn forget RUN`` asks it to forget; what arrives after the end is served by
    the next call with ``resume``.

    Parameters
    ----------
    out, resume, fresh, progress
        See :func:`fedunlearn.simulation.runner.simulate`.
    key
        The file of the signing key, outside of the run directory. Default: what ``$FEDUNLEARN_SIGNING_KEY`` names;
        with neither, the trail and certificates are not signed.
    service
        Further options of ``serve_live``, such as ``lease_seconds``.

    Raises
    ------
    UserError
        The data cannot be had or dealt out, or the run directory or the key cannot be used as asked.
    RunError
        A round missed its quorum, memory ran out, or another server has the run.
    """
    progress = progress or Progress()
    check_routines(experiment)
    check_cap(experiment)
    data = workspace.data_of(experiment, experiment.seeds[0])
    # What is wrong is said before a run is begun.
    check_models(experiment, data, workspace.new_model(experiment, data, experiment.seeds[0]))
    run = RunDirectory.open(experiment, out, resume=resume, fresh=fresh)
    try:
        with advising("the live federation", lambda: experiment):
            _serve(experiment, run, progress, key, service)
    finally:
        run.close()
    return run.path


def _serve(
    asked: Experiment, run: RunDirectory, progress: Progress, key: Path | None, service: Mapping[str, Any]
) -> None:
    torch.set_num_threads(asked.engine.threads_per_client)
    branch = live_branch(asked)
    progress.begin(run.path, [branch])
    experiment = settled(asked, run, progress)
    signing_key = find_key(key, run_folder=run.path)
    if signing_key is None:
        progress.note(
            "no signing key: trail and certificates are not signed; make one with `fedunlearn keys new`"
        )
    clerk = Clerk(run.path, run.ledger, LIVE_BRANCH, experiment, signing_key)
    data = workspace.data_of(experiment, branch.seed)
    for note in (*data.notes, *run.notes()):
        progress.note(note)

    progress.branch_begins(branch, max(run.checkpoints(branch.name).rounds(), default=0))
    with open_grid(experiment, str(run.experiment_path), branch.seed) as grid:
        serve_live(
            grid,
            experiment,
            ledger=run.ledger,
            checkpoints=run.checkpoints(branch.name),
            folder=run.path,
            evaluate=evaluation_of(experiment, data=lambda: data),
            holder=f"{socket.gethostname()}:{os.getpid()}",
            observe=recorder(run, branch, progress),
            clerk=clerk,
            data=data,
            **service,
        )
    counts = run.ledger.counts(LIVE_BRANCH)
    progress.note(f"requests: {', '.join(f'{n} {state}' for state, n in counts.items()) or 'none'}")
