"""Running a live federation on any Grid: one server at a time, from wherever the last one got to."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from logging import INFO
from pathlib import Path
from types import MappingProxyType

from flwr.common.logger import log
from flwr.serverapp import Grid

from fedunlearn import workspace
from fedunlearn.config import Experiment
from fedunlearn.data import FederatedData
from fedunlearn.federation.payload import pack
from fedunlearn.live.evaluation import LiveEvaluation
from fedunlearn.live.hooks import Clerk, LiveConduct
from fedunlearn.live.measurements import RequestMeasures
from fedunlearn.live.nodes import NodeRoster
from fedunlearn.live.notifications import ANSWER_SECONDS, Messenger
from fedunlearn.requests import LIVE_BRANCH, Ledger
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.runs.history_files import HISTORY
from fedunlearn.server.architecture import Architecture
from fedunlearn.server.branch import live_branch
from fedunlearn.server.history import History
from fedunlearn.server.recovery import RequestProgress
from fedunlearn.server.rounds import RoundReport
from fedunlearn.server.serve import make_strategy

LEASE_SECONDS = 15.0
"""A server that has not been heard of for so long may be replaced."""
TAKEOVER_SECONDS = 60.0
"""So long a server waits for the lease of one that died, at most."""


def serve_live(
    grid: Grid,
    experiment: Experiment,
    *,
    ledger: Ledger,
    checkpoints: Checkpoints,
    folder: Path,
    evaluate: LiveEvaluation,
    holder: str,
    observe: Callable[[RoundReport], None] | None = None,
    roster: NodeRoster | None = None,
    declared: Mapping[int, int] = MappingProxyType({}),
    clerk: Clerk | None = None,
    data: FederatedData | None = None,
    lease_seconds: float = LEASE_SECONDS,
    takeover_seconds: float = TAKEOVER_SECONDS,
    clock: Callable[[], float] = time.time,
    pause: Callable[[float], None] = time.sleep,
) -> tuple[RequestProgress, ...]:
    """Run a live federation until ``train.rounds`` are done and no request is open, and return its requests.

    Parameters
    ----------
    ledger, checkpoints, folder
        Of the run directory, which may be that of a server that died at any moment.
    evaluate
        Measures the global model.
    holder
        What this server is called in the ledger.
    observe
        Called for every round just before it is saved, while nobody can take over: what it writes to the run
        directory is written by one server only.
    roster
        Who serves which client; None: nodes are believed.
    declared
        Client → the most examples that it has, as far as the operator says.
    clerk
        Attends after every round.
    data
        Of which the server has the shapes. Default: all of the experiment's.
    lease_seconds, takeover_seconds
        Term of the lease; how long to wait for another's to run out.
    clock, pause
        Unix seconds, and a way to let time pass.

    Raises
    ------
    LeaseHeldError
        Another server is at work.
    FencedError
        Another server has taken over; this one has written nothing since.
    QuorumMissedError
        On an engine that cannot lose clients, too few of a round's clients answered.
    """
    branch = live_branch(experiment)
    with ExitStack() as stack:
        lease = ledger.take_lease(LIVE_BRANCH, holder, seconds=lease_seconds, wait=takeover_seconds)
        stack.callback(lease.release)
        stack.enter_context(lease.keep_alive())
        log(INFO, "%s serves the federation as server number %d", holder, lease.token)
        checkpoints.sweep()
        if data is None:
            data = workspace.data_of(experiment, branch.seed)
        architecture = Architecture.of(partial(workspace.new_model, experiment, data))
        # A node that hangs holds up no more than this: its measure is worth less than the others' training.
        patience = min(ANSWER_SECONDS, experiment.federation.round_timeout)
        messenger = Messenger(experiment.data.task, evaluate.held_out, timeout=patience)
        conduct = LiveConduct(
            experiment,
            ledger,
            folder,
            evaluate,
            roster=roster,
            declared=declared,
            clerk=clerk,
            measures=RequestMeasures(ledger, LIVE_BRANCH, messenger),
            clock=clock,
            pause=pause,
        )
        strategy = make_strategy(
            experiment,
            branch,
            ledger=ledger,
            checkpoints=checkpoints,
            observe=observe,
            conduct=conduct,
            architecture=architecture,
            history=lambda keeps: History(keeps, folder / HISTORY / LIVE_BRANCH / keeps.name),
        )
        strategy.start(
            grid,
            pack(architecture.initial(branch.training_seed)),
            num_rounds=sys.maxsize,
            timeout=experiment.federation.round_timeout,
            evaluate_fn=evaluate,
        )
        return strategy.requests
