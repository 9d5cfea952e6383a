"""How a live federation measures its global model: on a file that the server holds, or by asking the clients.

Both are Flower's ``evaluate_fn`` and answer alike, so that recovery and the guard need not know which it is:
``validation-<quality>`` (percent) and ``validation-loss`` (nats). A model that has diverged has neither.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from logging import WARNING
from pathlib import Path
from typing import Protocol

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from fedunlearn import resident
from fedunlearn.config import Experiment
from fedunlearn.data import FederatedData
from fedunlearn.data.export import read_part
from fedunlearn.errors import ConfigError
from fedunlearn.evaluation.accuracy import mean_loss, quality
from fedunlearn.evaluation.catalogue import QUALITY, Unmeasurable
from fedunlearn.evaluation.histograms import Tally, Withheld, tally_of, total
from fedunlearn.evaluation.outputs import collect
from fedunlearn.evaluation.scored import Scored
from fedunlearn.federation.payload import ModelState, pack, unpack
from fedunlearn.federation.tallies import EVALUATE, tally_in
from fedunlearn.out_of_memory import naming_shortage

NodesToAsk = Callable[[], Mapping[int, int]]
"""Returns the clients that may be asked now, retained and reachable: number → node id."""


class LiveEvaluation(Protocol):
    """Measures the global model of a live federation; Flower's ``evaluate_fn``."""

    def __call__(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Return ``validation-<quality>`` and ``validation-loss``; neither where they cannot be had."""
        ...

    def bind(self, grid: Grid, nodes: NodesToAsk) -> None:
        """Say through what, and whom, clients are asked; before anything is measured."""
        ...

    def without(self, clients: Collection[int], round: int, state: ModelState) -> MetricRecord:
        """Return the same measures as if these clients had never been asked.

        That is what a model that has forgotten them is to be compared with: where the clients measure, it is
        measured without them afterwards, and what they held may have been easier than the rest, or harder.
        """
        ...

    def held_out(self, state: ModelState) -> Tally | Withheld:
        """Return the tally of examples that no client trained on, for attacks on the forgotten data."""
        ...


class ServerFileEvaluation:
    """Validation data that lie at the server, in one pass per round.

    Parameters
    ----------
    experiment
    data
        Of which the validation split is read: a simulation's own, or that of a file (:meth:`from_file`).

    Raises
    ------
    ConfigError
        If there is nothing to validate on.
    """

    def __init__(self, experiment: Experiment, data: FederatedData) -> None:
        if not len(data.validation_labels):
            raise ConfigError(
                "a live federation is measured on validation data, and there are none: set data.validation > 0, "
                'name a file of validation data, or set requests.validation = "clients"'
            )
        self._data = data
        self._quality = QUALITY[data.task]
        self._model = resident.new_model(experiment, data, seed=0)

    @classmethod
    def from_file(cls, experiment: Experiment, path: Path) -> ServerFileEvaluation:
        """Measure on a file that ``fedunlearn data export`` wrote, or anyone in that format."""
        part = read_part(path, task=experiment.data.task, dtype=resident.dtype_of(experiment))
        return cls(
            experiment, part.of_server(experiment.federation.num_clients, resident.device_of(experiment))
        )

    def bind(self, grid: Grid, nodes: NodesToAsk) -> None:
        """Do nothing: nobody is asked."""

    def __call__(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Measure the model in ``arrays``."""
        return self._measured(server_round, unpack(arrays))

    def without(self, clients: Collection[int], round: int, state: ModelState) -> MetricRecord:
        """Measure the model again: no client's data are in the file."""
        return self._measured(round, state)

    def held_out(self, state: ModelState) -> Tally | Withheld:
        """Return the tally of the validation data."""
        return tally_of(self._outputs(state, "measures of a request"))

    def _measured(self, round: int, state: ModelState) -> MetricRecord:
        outputs = self._outputs(state, f"evaluation, round {round}")
        try:
            return _record(self._quality, quality(outputs), mean_loss(outputs))
        except Unmeasurable:
            return MetricRecord()

    def _outputs(self, state: ModelState, doing: str) -> Scored:
        self._model.load(state.vector, state.buffers)
        with naming_shortage(doing, "evaluation"):
            outputs = collect(self._model.module, self._data, splits=("validation",)).validation
        assert outputs is not None
        return outputs


class FederatedEvaluation:
    """The clients' own training data, counted where they lie: for federations whose server holds no data.

    Every retained client that can be reached is asked for a tally in every round, and the examples of all
    are taken together. Sums are exact, so that the measure does not depend on who answers first; it does on who
    answers, and ``validation-clients`` says how many did. Who has fewer than five examples tells nothing.

    These are data that the model has trained on: quality is higher than on unseen data, and there is nothing to
    compare forgotten data with.

    Parameters
    ----------
    task
        "classification" or "segmentation".
    timeout
        Seconds after which a client that has not answered is left out.
    """

    def __init__(self, task: str, *, timeout: float) -> None:
        self._quality = QUALITY[task]
        self._timeout = timeout
        self._grid: Grid | None = None
        self._nodes: NodesToAsk = dict
        self._last: tuple[ModelState, Mapping[int, Tally]] | None = None

    def bind(self, grid: Grid, nodes: NodesToAsk) -> None:
        """Say through what, and whom, clients are asked."""
        self._grid, self._nodes = grid, nodes

    def __call__(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Ask the clients what the model in ``arrays`` makes of their data."""
        state = unpack(arrays)
        return self._together(server_round, self._asked(server_round, state))

    def without(self, clients: Collection[int], round: int, state: ModelState) -> MetricRecord:
        """Take the others' answers together; they are asked only if these were not the last weights measured."""
        told = self._last[1] if self._last is not None and _same(self._last[0], state) else None
        if told is None:
            told = self._asked(round, state)
        return self._together(round, {k: tally for k, tally in told.items() if k not in clients})

    def held_out(self, state: ModelState) -> Tally | Withheld:
        """Return why there is none."""
        return Withheld('the federation holds no unseen data (requests.validation = "clients")')

    def _asked(self, round: int, state: ModelState) -> Mapping[int, Tally]:
        """Return the tallies of the clients that answered with one."""
        assert self._grid is not None, "bind comes first"
        nodes = self._nodes()
        content = RecordDict({"arrays": pack(state), "config": ConfigRecord({"round": round})})
        questions = [
            Message(content, node, EVALUATE, group_id=str(round)) for _, node in sorted(nodes.items())
        ]
        client_of = {node: client for client, node in nodes.items()}
        told: dict[int, Tally] = {}
        for reply in self._grid.send_and_receive(questions, timeout=self._timeout) if questions else ():
            client = client_of.get(reply.metadata.src_node_id)
            if client is None:
                continue
            if reply.has_error():
                reason = (reply.error.reason or "no reason given").strip().splitlines()[-1]
                log(WARNING, "round %d: client %d did not measure the model: %s", round, client, reason)
            elif isinstance(tally := tally_in(reply.content), Tally):
                told[client] = tally
        self._last = state, told
        return told

    def _together(self, round: int, told: Mapping[int, Tally]) -> MetricRecord:
        if not told:
            log(WARNING, "round %d: no client told how good the model is", round)
            return MetricRecord()
        everything = total(told.values())
        record = _record(self._quality, everything.quality, everything.loss)
        record["validation-clients"] = len(told)
        return record


def evaluation_of(
    experiment: Experiment, *, data: Callable[[], FederatedData], file: Path | None = None
) -> LiveEvaluation:
    """Return what ``requests.validation`` asks for.

    Parameters
    ----------
    data
        Loads the experiment's data; called only where their validation split is measured.
    file
        Validation data at the server; None: the experiment's split.
    """
    assert experiment.requests is not None, "only a live federation is measured so"
    if experiment.requests.validation == "clients":
        return FederatedEvaluation(experiment.data.task, timeout=experiment.federation.round_timeout)
    return (
        ServerFileEvaluation.from_file(experiment, file)
        if file is not None
        else ServerFileEvaluation(experiment, data())
    )


def _record(name: str, quality: float, loss: float) -> MetricRecord:
    return MetricRecord({f"validation-{name}": quality, "validation-loss": loss})


def _same(one: ModelState, other: ModelState) -> bool:
    return (
        torch.equal(one.vector, other.vector)
        and one.buffers.keys() == other.buffers.keys()
        and all(torch.equal(value, other.buffers[name]) for name, value in one.buffers.items())
    )
