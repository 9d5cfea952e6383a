"""Whom the model has learned from: of clients that it has, and of parts of their data that it was spared."""

from __future__ import annotations

from fedunlearn.parts import Parts
from fedunlearn.requests import PlanRecord
from fedunlearn.server.plan import RoundPlan


class Participation:
    """Which clients a federation's rounds trained, and what each of them left out in all of them.

    Of what the model has not learned from there is nothing to forget: a step against it would only do harm.
    """

    def __init__(self) -> None:
        self._clients: set[int] = set()
        self._left_out: dict[int, frozenset[int]] = {}  # of those that left out the same in all their rounds

    def copy(self) -> Participation:
        """Return one that may go on differently."""
        twin = Participation()
        twin._clients, twin._left_out = set(self._clients), dict(self._left_out)
        return twin

    def add(self, record: PlanRecord | None) -> Participation:
        """Take in a round as it was planned and answered, and return the same object."""
        if record is None:
            return self
        plan = RoundPlan.from_dict(record.plan)
        trained = set(plan.train) - record.failed.keys()
        for client in trained & self._left_out.keys():
            self._left_out[client] &= frozenset(plan.without.get(client, ()))
        for client in (trained & plan.without.keys()) - self._clients:
            self._left_out[client] = frozenset(plan.without[client])
        self._clients |= trained
        return self

    def numbers(self, parts: Parts) -> frozenset[int]:
        """Return the clients that the model has learned from, and those of the parts that it has."""
        learned = (
            number
            for number in parts
            if (client := parts.owner(number)) in self._clients
            and number not in self._left_out.get(client, ())
        )
        return frozenset(self._clients).union(learned)
