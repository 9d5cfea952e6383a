"""Bounds of one client's answer in a live federation: out of them, it is refused by name. Pure functions.

What is usual is taken from medians over clients, which less than half of them cannot move, and remembered from round
to round. An update that is to be negated is shortened instead of refused for its length
(:mod:`fedunlearn.live.guard`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median_low
from types import MappingProxyType
from typing import Any

import torch

from fedunlearn.config import GuardConfig
from fedunlearn.federation.sums import Contribution, norm_of
from fedunlearn.live.guard import usual_norm
from fedunlearn.models.state import ModelState

UPDATE = "update"
"""What a change of the weights is called beside those of buffers."""
FEWEST = 3
"""Of fewer answers none can be told to be the odd one, unless earlier rounds say what is usual."""
LARGEST_SUM = float(torch.finfo(torch.float32).max) / 4
"""Σ n_k ‖Δ_k‖ up to which a round's sum cannot overflow."""


@dataclass(frozen=True)
class Known:
    """What earlier rounds have shown of a federation; it is in every checkpoint.

    Attributes
    ----------
    usual_norm : float or None
        Median ‖Δ‖₂ of the last round that retained anybody.
    largest : Mapping[str, float]
        The largest median so far of the distance by which an answer moves the weights ("update"), and each buffer.
        The last one would not do: of a model that has nearly stopped learning updates are ever shorter, and an honest
        client's that is 30 times as long as the others' is still short beside those of the first rounds.
    examples : Mapping[int, int]
        Client → num-examples of the first round that it took part in.
    """

    usual_norm: float | None = None
    largest: Mapping[str, float] = field(default_factory=dict)
    examples: Mapping[int, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as a checkpoint keeps it."""
        examples = {str(client): n for client, n in sorted(self.examples.items())}
        return {"usual_norm": self.usual_norm, "largest": dict(self.largest), "examples": examples}

    @classmethod
    def from_dict(cls, account: Mapping[str, Any]) -> Known:
        """Return what :meth:`to_dict` wrote."""
        examples = {int(client): n for client, n in account["examples"].items()}
        return cls(account["usual_norm"], account["largest"], examples)

    def without(self, clients: Iterable[int]) -> Known:
        """Return it without what it says of these clients."""
        gone = set(clients)
        return replace(self, examples={k: n for k, n in self.examples.items() if k not in gone})


def screened(
    updates: Sequence[Contribution],
    model: ModelState,
    known: Known,
    guard: GuardConfig,
    declared: Mapping[int, int],
    norms: Mapping[int, float] = MappingProxyType({}),
) -> tuple[dict[int, str], Known]:
    """Judge the answers of the clients that trained.

    Whoever is out of bounds is refused, and the others are judged anew, until all of them are within: so a round that
    is executed again, without asking the refused, comes to the same judgement.

    Parameters
    ----------
    updates
        Sound ones, see :func:`fedunlearn.federation.answers.unsound`.
    model
        What they started from.
    known
        Before the round.
    guard
        Where it is not enabled, only sums that would overflow are prevented.
    declared
        Client → the most examples that it has, on the operator's word.
    norms
        Client → ‖Δ‖₂ of its update, of those for whom it has been measured already.

    Returns
    -------
    refused : dict[int, str]
        Client → why.
    known : Known
        Once the other answers count.
    """
    moved = {c.client: _moved(c, model, norms.get(c.client)) for c in updates}
    kept = list(updates)
    refused: dict[int, str] = {}
    while kept:
        largest = _largest(known.largest, [moved[c.client] for c in kept])
        usual = _usual_examples(kept)
        wrong: dict[int, str] = {}
        for c in kept if guard.enabled else ():
            why = too_many(c.client, c.num_examples, usual, known, guard, declared)
            if why := why or _too_far(moved[c.client], model, largest, guard):
                wrong[c.client] = why
        if not (wrong := wrong or _overflowing(kept, moved)):
            norms = {c.client: moved[c.client][UPDATE] for c in kept}
            examples = {c.client: c.num_examples for c in kept} | dict(known.examples)
            return refused, Known(usual_norm(norms, known.usual_norm), largest, examples)
        refused |= wrong
        kept = [c for c in kept if c.client not in wrong]
    return refused, known


def screened_forgetting(
    forgetting: Sequence[Contribution],
    owners: Mapping[int, int],
    known: Known,
    guard: GuardConfig,
    declared: Mapping[int, int],
    *,
    fewer: Collection[int],
    trained: bool,
) -> dict[int, str]:
    """Judge the answers of the clients to be forgotten; return client, or part of its data → why it is refused.

    Parameters
    ----------
    owners
        Part → the client whose data it is of.
    fewer
        Clients a part of whose data has been asked for before. Any other, to be forgotten as a whole, must still have
        the examples that were learned from: by few it would weigh little beside others that are forgotten with it.
    trained
        Whether they were asked to train as usual. Then nothing is forgotten by an update that is as good as zero, and
        its request must not end as if it were.
    """
    refused: dict[int, str] = {}
    for c in forgetting if guard.enabled else ():
        client = owners.get(c.client, c.client)
        why = too_many(client, c.num_examples, None, known, guard, declared)
        if not why and client == c.client and client not in fewer:
            why = _too_few(c, known, guard)
        if why := why or (_too_short(c, known, guard) if trained else ""):
            refused[c.client] = why
    return refused


def too_many(
    client: int,
    num_examples: int,
    usual: int | None,
    known: Known,
    guard: GuardConfig,
    declared: Mapping[int, int],
) -> str:
    """Say why a client cannot have so many examples; an empty string: it may.

    Parameters
    ----------
    usual
        The median of the round, by which a client's first number is judged; None: it is not.
    """
    said = f"refused: num-examples = {num_examples}"
    remedy = "if that is right, enter its num-examples in the roster"
    if (most := declared.get(client)) is not None:
        return f"{said}, the roster allows at most {most}" if num_examples > most else ""
    if (first := known.examples.get(client)) is not None:
        if num_examples <= guard.max_growth * first:
            return ""
        return f"{said}, in its first round {first}, guard.max-growth = {guard.max_growth:g}; {remedy}"
    if usual is None or num_examples <= guard.max_examples * usual:
        return ""
    return f"{said}, the median is {usual}, guard.max-examples = {guard.max_examples:g}; {remedy}"


def _too_few(c: Contribution, known: Known, guard: GuardConfig) -> str:
    first = known.examples.get(c.client)
    if first is None or c.num_examples * guard.max_growth >= first:
        return ""
    return (
        f"refused: num-examples = {c.num_examples} for forgetting, in its first round {first}, "
        f"guard.max-growth = {guard.max_growth:g}"
    )


def _usual_examples(answers: Sequence[Contribution]) -> int | None:
    return median_low(c.num_examples for c in answers) if len(answers) >= FEWEST else None


def _moved(update: Contribution, model: ModelState, norm: float | None) -> dict[str, float]:
    """Return the distance by which an answer moves the weights, and each buffer."""
    moved = {UPDATE: norm_of(update.delta) if norm is None else norm}
    for name, value in update.buffers.items():
        change = value.double() - model.buffers[name].double()
        moved[_named(name)] = float(torch.linalg.vector_norm(change).item())
    return moved


def _named(buffer: str) -> str:
    return f"buffer {buffer}"


def _largest(before: Mapping[str, float], moved: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """Return the largest medians, this round's included; of too few answers those of before."""
    if len(moved) < FEWEST and not before:
        return {}
    # Of two middle values the lower: it may be any of two clients that is the odd one.
    return {name: max(before.get(name, 0.0), median_low(each[name] for each in moved)) for name in moved[0]}


def _too_far(
    moved: Mapping[str, float], model: ModelState, largest: Mapping[str, float], guard: GuardConfig
) -> str:
    """Say which of an answer's distances is too long."""
    if not largest or not largest[UPDATE]:
        return ""
    counters = {_named(name) for name, value in model.buffers.items() if not value.is_floating_point()}
    for name, distance in moved.items():
        # Counters of batches differ from client to client as numbers of examples do.
        setting, factor = (
            ("max-examples", guard.max_examples) if name in counters else ("max-norm", guard.max_norm)
        )
        if distance > factor * largest[name]:
            return (
                f"refused: {name} of norm {distance:.3g}, the largest median so far is {largest[name]:.3g}, "
                f"guard.{setting} = {factor:g}"
            )
    return ""


def _too_short(c: Contribution, known: Known, guard: GuardConfig) -> str:
    if known.usual_norm is None or (norm := norm_of(c.delta)) > guard.min_norm * known.usual_norm:
        return ""
    return (
        f"refused: update of norm {norm:.3g} for forgetting, the median is {known.usual_norm:.3g}, "
        f"guard.min-norm = {guard.min_norm:g}"
    )


def _overflowing(kept: Sequence[Contribution], moved: Mapping[int, Mapping[str, float]]) -> dict[int, str]:
    """Return the client with the largest term of a sum that would be too large for float32; else nobody."""
    terms = {c.client: c.num_examples * max(moved[c.client].values()) for c in kept}
    if sum(terms.values()) <= LARGEST_SUM:
        return {}
    worst = max(terms, key=terms.__getitem__)
    return {worst: f"refused: num-examples times its update is {terms[worst]:.3g}, too large to be added up"}
