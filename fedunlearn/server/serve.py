"""One branch of an experiment on any Grid: its strategy by name, with everything that is not the method's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from logging import WARNING

from flwr.common.logger import log
from flwr.serverapp import Grid

from fedunlearn import plugins, workspace
from fedunlearn.config import Experiment
from fedunlearn.data import FederatedData
from fedunlearn.errors import DivergedError
from fedunlearn.evaluation.scored import QUALITY
from fedunlearn.federation.payload import ModelState, pack
from fedunlearn.federation.robust import Aggregation
from fedunlearn.requests import Ledger
from fedunlearn.runs.checkpoints import Checkpoints, Snapshot
from fedunlearn.server.architecture import Architecture
from fedunlearn.server.branch import Branch
from fedunlearn.server.evaluation import ServerEvaluation
from fedunlearn.server.history import History, Keeps
from fedunlearn.server.hooks import Conduct
from fedunlearn.server.loop import RoundLoop
from fedunlearn.server.recovery import RecoveryRule, RequestProgress, RetrainReference
from fedunlearn.server.rounds import RoundReport
from fedunlearn.server.settings import Settings


def make_strategy(
    experiment: Experiment,
    branch: Branch,
    *,
    references: Mapping[frozenset[int], RetrainReference] | None = None,
    ledger: Ledger | None = None,
    checkpoints: Checkpoints | None = None,
    observe: Callable[[RoundReport], None] | None = None,
    conduct: Conduct | None = None,
    architecture: Architecture | None = None,
    history: Callable[[Keeps], History] = History,
    archives: Iterable[History] = (),
) -> RoundLoop:
    """Return the strategy that runs a branch, with everything that is not its method's taken from the experiment."""
    settings = Settings(
        num_clients=experiment.federation.num_clients,
        train=experiment.train,
        seed=branch.training_seed,
        participation=experiment.federation.participation,
        quorum=experiment.federation.quorum,
        aggregation=Aggregation(experiment.federation.aggregation, experiment.federation.hostile_share),
        recovery=RecoveryRule(
            until=experiment.recover.until,
            epsilon=experiment.recover.epsilon,
            max_rounds=experiment.recover.max_rounds,
            references=references,
            quality=QUALITY[experiment.data.task],
        ),
        stop_when_recovered=branch.stop_when_recovered,
        parts=experiment.parts,
    )
    kind: type[RoundLoop] = plugins.find("strategies", branch.method.name if branch.method else "retrain")
    return kind(
        settings,
        branch.method.settings if branch.method else None,
        branch=branch.name,
        ledger=ledger,
        checkpoints=checkpoints,
        first_round=branch.first_round,
        observe=observe,
        conduct=conduct,
        excluded=branch.excluded,
        architecture=architecture,
        history=history,
        archives=archives,
    )


def serve(
    grid: Grid,
    experiment: Experiment,
    branch: Branch,
    *,
    ledger: Ledger,
    checkpoints: Checkpoints,
    fork: Snapshot | None = None,
    references: Mapping[frozenset[int], RetrainReference] | None = None,
    observe: Callable[[RoundReport], None] | None = None,
    data: FederatedData | None = None,
    conduct: Conduct | None = None,
    history: Callable[[Keeps], History] = History,
    archives: Iterable[History] = (),
    timeout: float = 3600,
) -> tuple[RequestProgress, ...]:
    """Run one branch to its end, from its latest checkpoint if it has one, and return its requests' outcome.

    A method that diverges has come to its end: that is the outcome of the requests that were open.

    Parameters
    ----------
    fork
        Weights and buffers to start from; None: the initial weights that the branch's training seed draws.
    references
        What recovery is judged by, by set of forgotten clients.
    data
        What the server measures on, and the shapes of. Default: all of the experiment's.
    conduct
        How rounds are conducted. Default: as in a simulation.
    history, archives
        See :class:`~fedunlearn.server.loop.RoundLoop`.
    timeout
        Seconds after which a client that has not answered has failed, on a grid that can lose clients.

    Raises
    ------
    DivergedError
        The original's or a retrained model's weights became NaN or infinite: there is nothing to compare with.
    """
    if data is None:
        data = workspace.data_of(experiment, branch.seed)
    if fork is None:
        model = workspace.new_model(experiment, data, branch.training_seed)
        start = ModelState(model.vector.clone(), model.buffers())
    else:
        start = ModelState(fork.vector.to(workspace.device_of(experiment)), fork.buffers)
    strategy = make_strategy(
        experiment,
        branch,
        references=references,
        ledger=ledger,
        checkpoints=checkpoints,
        observe=observe,
        conduct=conduct,
        architecture=Architecture.of(partial(workspace.new_model, experiment, data)),
        history=history,
        archives=archives,
    )
    for request in branch.requests:
        ledger.submit(branch.name, request_id=request.id, clients=request.clients, at_round=request.at_round)
    try:
        strategy.start(
            grid,
            pack(start),
            num_rounds=branch.last_round,
            timeout=timeout,
            evaluate_fn=ServerEvaluation(experiment, data, branch),
        )
    except DivergedError as error:
        if branch.kind != "method":
            raise
        log(WARNING, "%s: %s", branch.name, error)
        strategy.docket.diverge(error.round, error.why)
    return strategy.requests
