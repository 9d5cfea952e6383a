"""Where a request's clients, and parts of their data, stand: what its step did to each, and who goes on training.

The one place where this is decided: a certificate's facts and sentences, its page, and the reasons why nothing was
measured follow from it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from fedunlearn.requests.records import PlanRecord

Fate = Literal["taken", "with_client", "already", "never"]
"""What a step did to a client, or part, that its requests name.

``taken``: it was unlearned by itself. ``with_client``: a part, unlearned in the same step with all its client's data.
``already``: an earlier step had unlearned it, or its client. ``never``: it never took part in training.
"""


@dataclass(frozen=True)
class Standing:
    """How things stand with what one request names.

    Attributes
    ----------
    with_client, already, never : tuple[int, ...]
        Those of its numbers that had this `Fate` in its step; all others were taken.
    forgotten, left_out, asked : tuple[int, ...]
        Of the clients whose data it names in part: those that have been forgotten as a whole; that are left out of
        training for good; and whom an open request names as a whole. All others go on with the rest of their data.
    """

    with_client: tuple[int, ...] = ()
    already: tuple[int, ...] = ()
    never: tuple[int, ...] = ()
    forgotten: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()
    asked: tuple[int, ...] = ()

    def taken(self, numbers: Iterable[int]) -> tuple[int, ...]:
        """Return those of some numbers that were unlearned by themselves."""
        others = {*self.with_client, *self.already, *self.never}
        return tuple(number for number in numbers if number not in others)

    def going_on(self, owners: Iterable[int]) -> tuple[int, ...]:
        """Return those of some clients that go on with the rest of their data."""
        gone = {*self.forgotten, *self.left_out, *self.asked}
        return tuple(client for client in owners if client not in gone)


def fates(
    owner_of: Mapping[int, int],
    forget: Collection[int],
    plans: Iterable[PlanRecord],
    forgotten: Callable[[int], bool],
) -> dict[int, Fate]:
    """Return what a step did to each number.

    Parameters
    ----------
    owner_of
        Number of a client, or part → the client.
    forget
        Of the step's plan.
    plans
        Of the rounds before it. Looked at only for numbers that are not among ``forget``.
    forgotten
        Whether a client, or part, had been forgotten before the step.
    """
    others = {number: owner for number, owner in owner_of.items() if number not in forget}
    learned = learned_from(others, plans) if others else set()
    found: dict[int, Fate] = {}
    for number, owner in owner_of.items():
        if number in forget:
            found[number] = "taken"
        elif number not in learned:
            found[number] = "never"
        elif owner in forget and not forgotten(number):
            found[number] = "with_client"
        else:
            found[number] = "already"
    return found


def learned_from(owner_of: Mapping[int, int], plans: Iterable[PlanRecord]) -> set[int]:
    """Return those of some clients, or parts, whose training went into the model."""
    found: set[int] = set()
    for plan in plans:
        trained, without = set(plan.plan.get("train", ())) - plan.failed.keys(), plan.plan.get("without", {})
        found |= {
            number
            for number, owner in owner_of.items()
            if owner in trained and number not in without.get(str(owner), ())
        }
    return found
