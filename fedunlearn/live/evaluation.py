"""How a live federation measures its global model: on a file that the server holds, or by asking the clients.

Both are Flower's ``evaluate_fn`` and answer alike, so that recovery and the guard need not know which it is:
``validation-<quality>`` (percent) and ``validation-loss`` (nats). A model that has diverged has neither.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from logging import WARNING
from typing import NamedTuple, Protocol

import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from fedunlearn import workspace
from fedunlearn.config import Experiment
from fedunlearn.data import FederatedData
from fedunlearn.errors import ConfigError
from fedunlearn.evaluation.accuracy import mean_loss, quality
from fedunlearn.evaluation.histograms import Tally, Withheld, tally_of, total
from fedunlearn.evaluation.outputs import collect
from fedunlearn.evaluation.scored import QUALITY, Scored, Unmeasurable
from fedunlearn.federation.answers import NUMBER
from fedunlearn.federation.answers import told as told_with
from fedunlearn.federation.payload import ModelState, pack, unpack
from fedunlearn.federation.replies import Correspondence, Question, read, secret_group
from fedunlearn.federation.tallies import EVALUATE
from fedunlearn.out_of_memory import naming_shortage
from fedunlearn.parts import Assignment

NodesToAsk = Callable[[], Mapping[int, int]]
"""Returns the clients that may be asked now, retained and reachable: number → node id."""
Assigned = Callable[[], Mapping[int, Assignment]]
"""Returns what those clients measure on that do not simply measure on all of their data."""

TooMany = Callable[[int, int], str]
"""Says why a client cannot have so many examples; an empty string: it can."""


def any_number(client: int, num_examples: int) -> str:
    """Object to no number of examples."""
    return ""


@dataclass(frozen=True)
class Respondents:
    """The clients that may be asked to measure.

    Attributes
    ----------
    grid
        Through which they are asked.
    nodes
        Who they are.
    assigned
        Of which data, where not of all.
    too_many
        What is objected to a number of examples that one of them has measured on.
    """

    grid: Grid
    nodes: NodesToAsk
    assigned: Assigned = dict
    too_many: TooMany = any_number


class LiveEvaluation(Protocol):
    """Measures the global model of a live federation; Flower's ``evaluate_fn``."""

    def __call__(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Return ``validation-<quality>`` and ``validation-loss``; neither where they cannot be had."""
        ...

    def bind(self, clients: Respondents) -> None:
        """Say which clients may be asked, before anything is measured."""
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
        Of which the validation split is read: a simulation's own, or that of a file.

    Raises
    ------
    ConfigError
        If there is nothing to validate on.
    """

    def __init__(self, experiment: Experiment, data: FederatedData) -> None:
        if not len(data.validation_labels):
            raise ConfigError(
                "a live federation is evaluated on validation data, but has none: set data.validation > 0, "
                'name a file of validation data, or set requests.validation = "clients"'
            )
        self._data = data
        self._quality = QUALITY[data.task]
        self._model = workspace.new_model(experiment, data, seed=0)

    def bind(self, clients: Respondents) -> None:
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
        self._clients: Respondents | None = None
        self._last: _Told | None = None

    def bind(self, clients: Respondents) -> None:
        """Say which clients may be asked."""
        self._clients = clients

    def __call__(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Ask the clients what the model in ``arrays`` makes of their data."""
        state = unpack(arrays)
        return self._together(server_round, self._asked(server_round, state))

    def without(self, clients: Collection[int], round: int, state: ModelState) -> MetricRecord:
        """Take the others' answers together; they are asked only if these were not the last weights measured.

        Nor on the same data: who is about to forget a part of its data measures on what it keeps.
        """
        last = self._last
        if last is None or not _same(last.state, state):
            told = self._asked(round, state)
        elif otherwise := _differing(last.assigned, self._respondents().assigned()):
            same = {k: tally for k, tally in last.told.items() if k not in otherwise}
            told = {**same, **self._asked(round, state, otherwise)}
        else:
            told = last.told
        return self._together(round, {k: tally for k, tally in told.items() if k not in clients})

    def held_out(self, state: ModelState) -> Tally | Withheld:
        """Return why there is none."""
        return Withheld('the federation holds no unseen data (requests.validation = "clients")')

    def _respondents(self) -> Respondents:
        assert self._clients is not None, "bind comes first"
        return self._clients

    def _asked(
        self, round: int, state: ModelState, only: Collection[int] | None = None
    ) -> Mapping[int, Tally]:
        """Return the tallies of the clients, or of only those, that answered with one."""
        clients = self._respondents()
        nodes = {k: node for k, node in sorted(clients.nodes().items()) if only is None or k in only}
        arrays, assigned, config = pack(state), clients.assigned(), {"round": round}
        content = RecordDict({"arrays": arrays, "config": ConfigRecord(config)})  # type: ignore[arg-type]
        own = {
            k: RecordDict(
                {"arrays": arrays, "config": ConfigRecord({**told_with(config, assigned[k]), NUMBER: k})}
            )
            for k in nodes.keys() & assigned.keys()
        }
        sent = Correspondence(
            (
                Question(k, node, EVALUATE, secret_group(round), assigned=k in own, tally=True),
                own.get(k, content),
            )
            for k, node in nodes.items()
        )
        told: dict[int, Tally] = {}
        for reply in clients.grid.send_and_receive(sent.messages, timeout=self._timeout) if nodes else ():
            if (question := sent.question_of(reply)) is None:
                continue
            reading, tally = read(reply, question), None
            why = reading.why
            if isinstance(reading.tally, Tally):
                tally = reading.tally
                why = clients.too_many(question.number, tally.num_examples)
            if tally is not None and not why:
                told[question.number] = tally
            elif why:
                reason = why.strip().splitlines()[-1]
                log(
                    WARNING,
                    "round %d: client %d did not evaluate the model: %s",
                    round,
                    question.number,
                    reason,
                )
        if only is None:
            self._last = _Told(state, told, dict(assigned))
        return told

    def _together(self, round: int, told: Mapping[int, Tally]) -> MetricRecord:
        if not told:
            log(WARNING, "round %d: no client evaluated the model", round)
            return MetricRecord()
        everything = total(told.values())
        record = _record(self._quality, everything.quality, everything.loss)
        record["validation-clients"] = len(told)
        return record


def evaluation_of(experiment: Experiment, *, data: Callable[[], FederatedData]) -> LiveEvaluation:
    """Return what ``requests.validation`` asks for.

    Parameters
    ----------
    data
        Loads what the server has of the experiment's data; called only where their validation split is measured.
    """
    assert experiment.requests is not None, "only a live federation is evaluated like this"
    if experiment.requests.validation == "clients":
        return FederatedEvaluation(experiment.data.task, timeout=experiment.federation.round_timeout)
    return ServerFileEvaluation(experiment, data())


class _Told(NamedTuple):
    """What clients told of some weights, and on what they measured them."""

    state: ModelState
    told: Mapping[int, Tally]
    assigned: Mapping[int, Assignment]


def _differing(one: Mapping[int, Assignment], other: Mapping[int, Assignment]) -> set[int]:
    return {k for k in one.keys() | other.keys() if one.get(k) != other.get(k)}


def _record(name: str, quality: float, loss: float) -> MetricRecord:
    return MetricRecord({f"validation-{name}": quality, "validation-loss": loss})


def _same(one: ModelState, other: ModelState) -> bool:
    return (
        torch.equal(one.vector, other.vector)
        and one.buffers.keys() == other.buffers.keys()
        and all(torch.equal(value, other.buffers[name]) for name, value in one.buffers.items())
    )
