"""One worker of an engine: trains its share of a round on a resident model and adds up what comes out."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from logging import WARNING
from typing import TypeVar

import torch
from flwr.common.logger import log
from torch import Tensor

from fedunlearn.errors import NOT_FINITE, UserError
from fedunlearn.federation.answers import (
    FORGET,
    OTHER_WORK,
    TRAIN,
    Answers,
    ClientWork,
    RoundWork,
    unsound,
    work_of,
)
from fedunlearn.federation.client_trainer import ClientRoutine
from fedunlearn.federation.client_work import Done, do_work, train_only
from fedunlearn.federation.jobs import ROUTINE
from fedunlearn.federation.sums import BlockSum, Contribution, norm_of, pieces_of
from fedunlearn.out_of_memory import is_shortage
from fedunlearn.training import LocalResult, keep_freed_memory

Result = TypeVar("Result", Done, LocalResult)


@dataclass(frozen=True)
class Unit:
    """A share of a round that one worker does in one go.

    Attributes
    ----------
    clients : tuple[int, ...]
        Ascending. Where summed, all the round's clients of one or several blocks of :data:`sums.BLOCK` numbers.
    kind : str
        ``train`` or ``train.forget``.
    summed : bool
        Whether their updates are added up here, or handed over one by one.
    """

    clients: tuple[int, ...]
    kind: str = TRAIN
    summed: bool = True


class Worker:
    """Does units of work with one :class:`~fedunlearn.federation.client_trainer.ClientRoutine`.

    What comes out does not depend on which worker does a unit, nor on how a round is cut into units.

    Parameters
    ----------
    routine
        Its model is this worker's own.
    batch_clients
        How many clients are trained in one stack; 1: one after the other.
    """

    def __init__(self, routine: ClientRoutine, batch_clients: int = 1) -> None:
        if routine.model.vector.device.type == "cpu":
            keep_freed_memory()  # a fresh 45 MB vector takes ten times as long as one that was freed before
        self.routine = routine
        self.batch_clients = batch_clients
        self._pieces = pieces_of(routine.model.vector)

    def do(self, work: RoundWork, unit: Unit) -> Answers:
        """Return the unit's answers; a client that raises, or whose update is unsound, is in ``failed``."""
        if not unit.summed:
            answers = self._singly(work, unit)
        elif self._stacks_up(work, unit):
            answers = self._stacked_sum(work, unit)
        else:
            answers = self._sum(work, unit)
        return answers.sort()

    # -- one after the other ------------------------------------------------------------------------------

    def _sum(self, work: RoundWork, unit: Unit) -> Answers:
        """Add up the unit's updates as they are trained, without holding a single one."""
        model, start = self.routine.model, work.start(unit.kind)
        start_pieces = pieces_of(start.vector)
        total = BlockSum()
        answers = Answers(total)
        clean = False
        for client in unit.clients:
            if not clean or start.buffers:
                model.load(start.vector, start.buffers)
            clean = False
            result = self._done(train_only, work, client, unit.kind, answers)
            if result is None:
                continue
            clean = client != unit.clients[-1]  # whoever comes next in another unit loads its own
            norm = total.add_trained(
                client,
                result.num_examples,
                self._pieces,
                start_pieces,
                model.buffers(),
                reset=clean,
                measured=work.norms,
            )
            answers.losses[client] = result.loss
            if result.extras:
                answers.extras[client] = result.extras
            if work.norms:
                answers.norms[client] = norm
        # Looked at once for all: NaN and Inf do not go away in a sum. Only where there are any is it worth to
        # do the work again, checking each, to say whose they are and leave them out.
        return answers if total.is_finite() else self._checked_sum(work, unit)

    def _checked_sum(self, work: RoundWork, unit: Unit) -> Answers:
        answers = self._one_by_one(work, unit)
        assert isinstance(answers.retained, list)
        answers.retained = BlockSum.of(answers.retained)
        return answers

    def _singly(self, work: RoundWork, unit: Unit) -> Answers:
        """Return the unit's updates one by one."""
        if self._stacks_up(work, unit) and unit.kind == TRAIN and len(unit.clients) > 1:
            return self._stacked_singly(work, unit)
        answers = self._one_by_one(work, unit)
        if unit.kind == FORGET:
            assert isinstance(answers.retained, list)
            answers.forgetting = answers.retained
            answers.retained = []
        return answers

    def _one_by_one(self, work: RoundWork, unit: Unit) -> Answers:
        updates: list[Contribution] = []
        answers = Answers(updates)
        for client in unit.clients:
            done = self._done(do_work, work, client, unit.kind, answers)
            if done is None:
                continue
            if why := unsound(done.update, done.num_examples, work.state):
                answers.failed[client] = f"refused: {why}"
                continue
            updates.append(Contribution(client, done.num_examples, done.update.vector, done.update.buffers))
            answers.losses[client] = done.loss
            if done.tally is not None:
                answers.tallies[client] = done.tally
            if done.extras:
                answers.extras[client] = done.extras
            if work.norms and unit.kind == TRAIN:
                answers.norms[client] = norm_of(done.update.vector)
        return answers

    def _done(
        self,
        do: Callable[[ClientRoutine, ClientWork], Result],
        work: RoundWork,
        client: int,
        kind: str,
        answers: Answers,
    ) -> Result | None:
        """Let a client do its work; None where that comes to nothing, and ``failed`` says why unless it is right."""
        try:
            result = do(self.routine, work.asked(client, kind))
        except UserError as error:
            answers.failed[client] = f"refused: {error}"
            return None
        except Exception:
            # The traceback is the user's, not ours to swallow: the strategy reports it by client.
            answers.failed[client] = traceback.format_exc()
            return None
        if result.ran != (asked := work_of(work.told(kind))):
            answers.failed[client] = f"{OTHER_WORK}: the client ran {result.ran!r} instead of {asked!r}"
            return None
        if result.num_examples == 0 and client in work.assignments:
            return None  # nothing is left of its data, or nothing of them is to be forgotten: no failure
        if result.num_examples < 1:
            answers.failed[client] = f"refused: num-examples = {result.num_examples}, must be at least 1"
            return None
        return result

    def _stacks_up(self, work: RoundWork, unit: Unit) -> bool:
        """Whether a unit is trained in stacks: no routine is, nor whoever works with a part of its data only."""
        if self.batch_clients == 1 or ROUTINE in work.told(unit.kind):
            return False
        return work.assignments.keys().isdisjoint(unit.clients)

    # -- many in one stack --------------------------------------------------------------------------------

    def _stacked_sum(self, work: RoundWork, unit: Unit) -> Answers:
        total = BlockSum()
        answers = Answers(total)
        for clients in self._stacks(unit):
            deltas, sound = self._train_stack(work, clients, unit.kind, answers)
            if deltas is not None:
                total.add_stack([c for c, _ in sound], [n for _, n in sound], deltas)
                continue
            for update in self._without_stack(work, Unit(clients, unit.kind, summed=False), answers):
                total.add(update)
        return answers

    def _stacked_singly(self, work: RoundWork, unit: Unit) -> Answers:
        updates: list[Contribution] = []
        answers = Answers(updates)
        for clients in self._stacks(unit):
            deltas, sound = self._train_stack(work, clients, unit.kind, answers)
            if deltas is None:
                updates += self._without_stack(work, Unit(clients, unit.kind, summed=False), answers)
            else:
                kept = deltas.clone()  # the stack's memory is used again for the next
                updates += [Contribution(c, n, delta) for (c, n), delta in zip(sound, kept, strict=True)]
        return answers

    def _without_stack(self, work: RoundWork, unit: Unit, answers: Answers) -> list[Contribution]:
        """Train the clients of a stack that failed one by one, and enter in ``answers`` who it was."""
        one_by_one = self._one_by_one(work, unit)
        answers.failed |= one_by_one.failed
        answers.losses |= one_by_one.losses
        answers.norms |= one_by_one.norms
        assert isinstance(one_by_one.retained, list)
        return one_by_one.retained

    def _stacks(self, unit: Unit) -> list[tuple[int, ...]]:
        size = self.batch_clients
        return [unit.clients[at : at + size] for at in range(0, len(unit.clients), size)]

    def _train_stack(
        self, work: RoundWork, clients: Sequence[int], kind: str, answers: Answers
    ) -> tuple[Tensor | None, list[tuple[int, int]]]:
        """Return the sound updates as a matrix, and (client, n_k) of each; None if the stack as such failed."""
        start = work.start(kind).vector
        try:
            result = self.routine.train_stack(clients, start, work.told(kind))
        except Exception as error:
            if is_shortage("".join(traceback.format_exception_only(error))):
                log(
                    WARNING,
                    "no memory for %d clients in one stack, training them one by one instead",
                    len(clients),
                )
            return None, []  # one of them raised; one by one it will be seen which
        deltas = result.vectors.sub_(start)
        finite = torch.isfinite(deltas.sum(dim=1)).tolist()
        rows, sound = [], []
        for row, client in enumerate(clients):
            if finite[row] or bool(torch.isfinite(deltas[row]).all()):
                rows.append(row)
                sound.append((client, result.num_examples[row]))
                answers.losses[client] = result.losses[row]
                if work.norms:
                    answers.norms[client] = norm_of(deltas[row])
            else:
                answers.failed[client] = f"refused: update {NOT_FINITE}"
        return deltas if len(rows) == len(clients) else deltas[rows], sound
