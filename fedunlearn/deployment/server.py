"""One Flower run on the server, from its run-config to its end: what ``flwr run`` starts."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from logging import INFO, WARNING
from math import ceil
from pathlib import Path

import torch
from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid

from fedunlearn import workspace
from fedunlearn.certificates.issuer import Clerk
from fedunlearn.certificates.keys import find_key
from fedunlearn.config import Experiment, GuardConfig
from fedunlearn.data import FederatedData
from fedunlearn.data.export import read_part
from fedunlearn.deployment.roster import Roster
from fedunlearn.deployment.server_settings import ServerSettings, open_folder
from fedunlearn.deployment.supervise import holder_name
from fedunlearn.errors import RunError
from fedunlearn.federation.answers import Answers
from fedunlearn.federation.hosted_routine import check_routines
from fedunlearn.federation.sums import BlockSum
from fedunlearn.federation.superlink_grid import superlink_grid
from fedunlearn.live.evaluation import evaluation_of
from fedunlearn.live.nodes import Nodes
from fedunlearn.live.screening import Known, screened
from fedunlearn.live.service import LEASE_SECONDS, TAKEOVER_SECONDS, serve_live
from fedunlearn.models.state import ModelState
from fedunlearn.requests import LIVE_BRANCH, Ledger
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.runs.classes import note_classes
from fedunlearn.runs.metrics_log import MetricsLog
from fedunlearn.runs.round_metrics import round_metrics
from fedunlearn.server.hooks import Conduct
from fedunlearn.server.plan import RoundPlan
from fedunlearn.server.request_queue import Docket
from fedunlearn.server.rounds import RoundReport
from fedunlearn.server.serve import serve
from fedunlearn.simulation.branches import branches
from fedunlearn.simulation.capped_rounds import check_cap

POLL_SECONDS = 1.0
SAY_AGAIN_SECONDS = 60.0


def run(grid: Grid, context: Context) -> Path:
    """Train the federation that the run-config names, up to its end, and return its run directory.

    A live federation takes forget requests on the way; of any other experiment the original federation of the
    first seed is trained, without requests. What is in the run directory already is not done again.

    Raises
    ------
    UserError
        If the run-config or the experiment is wrong.
    RunError
        If too few nodes are there, or another server has the federation or has taken it over.
    """
    settings = ServerSettings.of(context.run_config)
    experiment = workspace.experiment_at(str(settings.experiment))
    check_routines(experiment)
    check_cap(experiment)
    # As many threads as in every other engine, or sums come out in another order.
    torch.set_num_threads(experiment.engine.threads_per_client)
    folder = open_folder(experiment, settings.folder)
    log(INFO, "run directory: %s", folder)
    roster = None
    if settings.roster is not None:
        roster = Roster.load(settings.roster)
    else:
        log(
            WARNING,
            "no roster: every node is trusted to say which client it is. Fine in a simulation; for a deployment name "
            "the roster in the run config",
        )
    grid = superlink_grid(grid)
    serve_it = _serve_live if experiment.live else _train_original
    serve_it(grid, experiment, settings, folder, roster)
    return folder


def holder(grid: Grid) -> str:
    """Return what this server is called in the ledger: the Flower run, and the process."""
    return holder_name(grid.run.run_id, f"{socket.gethostname()}:{os.getpid()}")


def _serve_live(
    grid: Grid, experiment: Experiment, settings: ServerSettings, folder: Path, roster: Roster | None
) -> None:
    """Serve a live federation until its rounds are done and no request is open."""
    key = find_key(settings.signing_key, run_folder=folder)
    if key is None:
        log(
            WARNING,
            "no signing key: trail and certificates are not signed; make one with `fedunlearn keys new`",
        )
    data = server_data(experiment, settings)
    if settings.validation is not None:
        note_classes(folder, data.class_names)
    with Ledger(folder / "requests.sqlite") as ledger:
        requests = serve_live(
            grid,
            experiment,
            ledger=ledger,
            checkpoints=Checkpoints(folder / "checkpoints", LIVE_BRANCH),
            folder=folder,
            evaluate=evaluation_of(experiment, data=lambda: data),
            holder=holder(grid),
            observe=_observer(folder, LIVE_BRANCH),
            roster=roster,
            declared={} if roster is None else roster.examples,
            clerk=Clerk(
                folder, ledger, LIVE_BRANCH, experiment, key, superlink_database=settings.superlink_database
            ),
            data=data,
        )
        log(INFO, "%s: is complete; %d requests were served", folder, len(requests))


def _train_original(
    grid: Grid, experiment: Experiment, settings: ServerSettings, folder: Path, roster: Roster | None
) -> None:
    """Train the original federation of the first seed."""
    branch = branches(experiment, experiment.seeds[0])[0]
    if settings.validation is not None:
        # No client's data are here: what a simulation measures on them is left out.
        branch = replace(branch, watched=())
    data = server_data(experiment, settings)
    checkpoints = Checkpoints(folder / "checkpoints", branch.name, branch.keeps)
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(folder / "requests.sqlite"))
        lease = ledger.take_lease(branch.name, holder(grid), seconds=LEASE_SECONDS, wait=TAKEOVER_SECONDS)
        stack.callback(lease.release)
        stack.enter_context(lease.keep_alive())
        if branch.last_round in checkpoints.rounds():
            log(INFO, "%s: is complete; nothing to do", folder)
            return
        known = Nodes(experiment.federation.num_clients, roster)
        await_nodes(grid, experiment, known)
        serve(
            grid,
            experiment,
            branch,
            ledger=ledger,
            checkpoints=checkpoints,
            observe=_observer(folder, branch.name),
            data=data,
            conduct=Deployed(known),
            timeout=experiment.federation.round_timeout,
        )


def _observer(folder: Path, branch: str) -> Callable[[RoundReport], None]:
    """Return what writes a round's measures into metrics.jsonl, and into Flower's log."""
    opened: list[MetricsLog] = []

    def observe(report: RoundReport) -> None:
        if not opened:  # not before this server is the one that writes
            opened.append(MetricsLog(folder / "metrics.jsonl"))
        opened[0].append(round_metrics(branch, report))
        measures = [f"{name} {value:.2f}" for name, value in report.metrics.items() if "@" not in name]
        log(INFO, "round %d: %s", report.round, ", ".join([*measures, f"{report.seconds:.1f} s"]))

    return observe


def server_data(experiment: Experiment, settings: ServerSettings) -> FederatedData:
    """Return what the server has of the data: its validation file, or else the whole of a simulation's."""
    if settings.validation is None:
        return workspace.data_of(experiment, experiment.seeds[0])
    part = read_part(settings.validation, task=experiment.data.task, dtype=workspace.dtype_of(experiment))
    return part.of_server(experiment.federation.num_clients, workspace.device_of(experiment))


class Deployed(Conduct):
    """The conduct of a federation whose nodes are other machines: they come and go, and are held against a roster.

    One that runs out of memory has failed alone, and is no sign of the others. What the guard of a live federation
    bounds is not bounded here; only nobody may make the model infinite without being named.
    """

    tolerant = True
    wants_updates = True

    def __init__(self, known: Nodes) -> None:
        super().__init__()
        self._known = known

    def nodes(self, grid: Grid) -> Mapping[int, int]:
        """Return client number → node id of everybody who is there now."""
        self._known.refresh(grid)
        return self._known.there

    def screened(
        self, plan: RoundPlan, docket: Docket, answers: Answers, model: ModelState, *, routine: bool
    ) -> dict[int, str]:
        """Refuse whoever makes the sum overflow."""
        assert not isinstance(answers.retained, BlockSum)
        return screened(answers.retained, model, Known(), GuardConfig(enabled=False), {})[0]


def await_nodes(
    grid: Grid,
    experiment: Experiment,
    known: Nodes,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until as many clients are there as the quorum asks for: nodes are started after the server, or before.

    Raises
    ------
    RunError
        If they have not come within ``federation.round-timeout``.
    """
    federation = experiment.federation
    needed = ceil(
        federation.quorum * federation.num_clients - 1e-9
    )  # a product of floats may be a bit too large
    begun, said = clock(), float("-inf")
    known.refresh(grid)
    while known.answering or len(known.there) < needed:
        there = len(known.there)
        waited = clock() - begun
        what = f"{there} of {federation.num_clients} clients are connected, but federation.quorum requires {needed}"
        if waited > federation.round_timeout:
            if there >= needed:
                return  # somebody else is slow to answer, and may join later
            raise RunError(
                f"{what}: waited {waited:.0f} s (federation.round-timeout); start the others' nodes, or in a "
                f'simulation set --federation-config "num-supernodes={federation.num_clients}"'
            )
        if clock() - said >= SAY_AGAIN_SECONDS:
            log(WARNING, "%s: waiting", what)
            said = clock()
        sleep(POLL_SECONDS)
        known.refresh(grid)
