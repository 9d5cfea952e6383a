"""Telling a forgotten client's node that it is forgotten, and asking it once what the new weights know of it.

When to do so, also after a crash, and what is noted of it: :class:`fedunlearn.live.measurements.RequestMeasures`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from logging import INFO, WARNING
from types import MappingProxyType

from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from fedunlearn.evaluation.histograms import Tally, Withheld, forget_measures
from fedunlearn.evaluation.measures import Measures
from fedunlearn.federation.answers import NUMBER
from fedunlearn.federation.answers import told as told_with
from fedunlearn.federation.payload import ModelState, pack
from fedunlearn.federation.replies import Correspondence, Question, read
from fedunlearn.federation.tallies import EVALUATE, FORGOTTEN
from fedunlearn.parts import Assignment

ANSWER_SECONDS = 120.0
"""So long a node may take to answer: it has little to compute, but may have to start a process and load its data."""


class Messenger:
    """Tells nodes that they have been forgotten, by a message of its own type.

    The message carries the weights that have forgotten the client. The node drops what it kept in its
    ``context.state``, counts what these weights make of its data, answers with that tally, and refuses to train or
    measure from then on. Telling twice does no harm; a node that cannot be told goes without, with a reason.

    A node that may have missed it, or have lost its ``context.state`` since, is reminded (:meth:`remind`): by the
    same message without weights, for whose answer nobody waits.

    Parameters
    ----------
    task
        "classification" or "segmentation".
    held_out
        Returns the tally of data that nobody trained on, by given weights.
    timeout
        Seconds to wait for the answers.
    clock
        Seconds, from anywhere.

    Attributes
    ----------
    told : set[int]
        Clients whose nodes have confirmed to this messenger that they know.
    """

    def __init__(
        self,
        task: str,
        held_out: Callable[[ModelState], Tally | Withheld],
        *,
        timeout: float = ANSWER_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.told: set[int] = set()
        self._clock = clock
        self._reminders: dict[str, tuple[Question, float]] = {}  # message → what it was, when
        self._task = task
        self._held_out = held_out
        self._timeout = timeout

    def forgotten(
        self,
        grid: Grid,
        nodes: Mapping[int, int],
        clients: Iterable[int],
        state: ModelState,
        *,
        assignments: Mapping[int, Assignment] = MappingProxyType({}),
    ) -> dict[int, Measures]:
        """Tell the clients' nodes, and return what the weights still know of each client.

        Parameters
        ----------
        nodes
            Client number → node id, of those that can be reached.
        clients
            Who has been forgotten; the step that did it has been saved.
        state
            The weights after it.
        assignments
            What was forgotten of those clients of which it was not simply all.

        Returns
        -------
        dict
            Of every one of the clients, in order, the names of ``forget_measures``; null with the reason where a
            node was not reached, did not answer in time, or had nothing to tell.
        """
        clients = sorted(set(clients))
        answers: dict[int, Tally | Withheld] = {
            client: Withheld(
                f"its node did not answer within {self._timeout:g} s"
                if client in nodes
                else "its node is gone"
            )
            for client in clients
        }
        arrays = pack(state)
        sent = Correspondence(
            (
                Question(client, nodes[client], FORGOTTEN, tally=True),
                _asking(arrays, client, assignments.get(client)),
            )
            for client in clients
            if client in nodes
        )
        for reply in grid.send_and_receive(sent.messages, timeout=self._timeout) if sent.messages else ():
            if (question := sent.question_of(reply)) is None:
                continue
            client, reading = question.number, read(reply, question)
            if reading.tally is None:
                # A traceback may name files and data. It stays in the log, and out of what is kept of a request.
                log(WARNING, "client %d could not be notified that it is forgotten: %s", client, reading.why)
                answers[client] = Withheld(
                    "its node answered with an error" if reading.error else reading.why
                )
            else:
                log(INFO, "client %d knows that it has been forgotten", client)
                self.told.add(client)
                answers[client] = reading.tally
        return self.measures(answers, state)

    def of_parts(
        self, grid: Grid, nodes: Mapping[int, int], assignments: Mapping[int, Assignment], state: ModelState
    ) -> dict[int, Measures]:
        """Return what weights still know of parts of clients' data; whose they are go on with the rest.

        Parameters
        ----------
        nodes, state
            See :meth:`forgotten`.
        assignments
            Part → what was forgotten of it.

        Returns
        -------
        dict
            As of :meth:`forgotten`, by part.
        """
        answers: dict[int, Tally | Withheld] = {}
        asked, arrays = [], pack(state)
        for part, assignment in sorted(assignments.items()):
            node = nodes.get(assignment.client)
            if node is None:
                answers[part] = Withheld("its client's node is gone")
                continue
            answers[part] = Withheld(f"its client's node did not answer within {self._timeout:g} s")
            question = Question(part, node, EVALUATE, assigned=True, tally=True)
            asked.append((question, _asking(arrays, part, assignment)))
        sent = Correspondence(asked)
        for reply in grid.send_and_receive(sent.messages, timeout=self._timeout) if asked else ():
            if (answered := sent.question_of(reply)) is None:
                continue
            reading = read(reply, answered)
            withheld = "its client's node answered with an error" if reading.error else reading.why
            answers[answered.number] = reading.tally or Withheld(withheld)
        return self.measures(answers, state)

    @property
    def reminding(self) -> frozenset[int]:
        """The clients whose nodes have been reminded and may still answer."""
        return frozenset(question.number for question, _ in self._reminders.values())

    def remind(self, grid: Grid, nodes: Mapping[int, int]) -> None:
        """Send clients' nodes a reminder; :meth:`collect` reads what they answer."""
        questions = [Question(client, node, FORGOTTEN) for client, node in nodes.items()]
        messages = [question.message(RecordDict()) for question in questions]
        for message, question in zip(
            grid.push_messages(messages) if messages else (), questions, strict=True
        ):
            if message is not None:
                self._reminders[message] = (question, self._clock())

    def collect(self, grid: Grid) -> None:
        """Read what has been answered to reminders by now; what was lost on its way may be sent again."""
        if not self._reminders:
            return
        for reply in grid.pull_messages(list(self._reminders)):
            question, _ = self._reminders.get(reply.metadata.reply_to_message_id, (None, 0.0))
            if question is None or reply.metadata.src_node_id != question.node:
                continue
            del self._reminders[reply.metadata.reply_to_message_id]
            if (reading := read(reply, question)).why:
                log(WARNING, "client %d could not be reminded: %s", question.number, reading.why)
            else:
                log(INFO, "client %d knows that it has been forgotten", question.number)
                self.told.add(question.number)
        now = self._clock()
        self._reminders = {
            message: (question, sent)
            for message, (question, sent) in self._reminders.items()
            if now - sent < ANSWER_SECONDS and question.number not in self.told
        }

    def measures(self, tallies: Mapping[int, Tally | Withheld], state: ModelState) -> dict[int, Measures]:
        """Return what clients' tallies of some weights say of them, as :meth:`forgotten` does.

        Of the weights before the step they come with the answers to ``train.forget`` (``Answers.tallies``).
        """
        if not any(isinstance(told, Tally) for told in tallies.values()):
            held_out: Tally | Withheld = Withheld("nothing to compare")  # no need to run the model for that
        else:
            held_out = self._held_out(state)
        return {
            client: forget_measures(self._task, told, held_out) for client, told in sorted(tallies.items())
        }


def _asking(arrays: ArrayRecord, number: int, assignment: Assignment | None) -> RecordDict:
    """Return a message's content: the weights, and of which data they are to be measured if not simply of all."""
    config = ConfigRecord()
    if assignment is not None:
        config = ConfigRecord({**told_with({}, assignment), NUMBER: number})
    return RecordDict({"arrays": arrays, "config": config})


def stage(
    round: int,
    measures: Mapping[int, Measures],
    validation: Mapping[str, float],
    told: Iterable[int] = (),
) -> dict[str, object]:
    """Return the JSON document of one stage of a request, for ``Ledger.note_measures``.

    Parameters
    ----------
    round
        After which the weights were measured.
    measures
        Of each forgotten client.
    validation
        Of the global model, as the evaluation answers; of its names those that start with ``validation-``.
    told
        The clients whose nodes know that they have been forgotten.
    """
    return {
        "round": round,
        "validation": {
            name.removeprefix("validation-"): value
            for name, value in sorted(validation.items())
            if name.startswith("validation-")
        },
        "clients": {
            str(client): {"values": dict(found), "reasons": dict(found.reasons)}
            for client, found in sorted(measures.items())
        },
        "told": sorted(told),
    }
