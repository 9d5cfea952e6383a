"""Local routines: whoever is to be forgotten runs a centralised unlearning method on the global model, at home.

Formula. In the round after the request every client in U runs the routine (:mod:`fedunlearn.unlearning`) on the
global weights w, with F the data to be forgotten and R what else it has, and returns Δ_u = w_u − w and |F| examples.
The routine says how its result is to be taken:

- replace: w ← w + Σ_U (n_u/N_U) Δ_u, the mean of the results, in a round of U alone;
- weighted: w ← w + (Σ_{S⁺} n_k Δ_k + Σ_U n_u Δ_u) / (Σ_{S⁺} n_k + Σ_U n_u), in a round with the retained clients;
- negated: w ← w − Σ_U (n_u/N_U) Δ_u, in a round of U alone.

Recovery is federated averaging without U (of a part of a client's data: without that part). With one client, who
holds everything, replace is the routine on pooled data, as the papers have it.

Source: FedQUIT and FedUNRAN (Mora et al.) are such methods.

Deviations and choices of ours: of all other routines the hosting is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor

from fedunlearn import unlearning
from fedunlearn.config.components import SettingsOf
from fedunlearn.config.settings import Contradiction, Settings
from fedunlearn.federation.answers import FORGET
from fedunlearn.federation.hosted_routine import Chosen
from fedunlearn.federation.jobs import Job
from fedunlearn.federation.sums import BlockSum, Contribution
from fedunlearn.server.plan import RoundPlan, Situation
from fedunlearn.server.round import Round, RoundStart
from fedunlearn.strategies.base import UnlearningStrategy, settings_in_words

if TYPE_CHECKING:
    from fedunlearn.config import Experiment


def hosted_step(w: Tensor, retained: BlockSum, forgetting: Sequence[Contribution], how: str) -> Tensor:
    """Return the weights after the round in which clients forgot by themselves, as a new tensor.

    Parameters
    ----------
    w : Tensor, shape (num_parameters,)
    retained : BlockSum
    forgetting : sequence of Contribution
        At least one.
    how
        "replace", "weighted" or "negated", see the module's docstring.
    """
    forgotten = BlockSum.of(forgetting)
    if how == "weighted":
        total = retained.num_examples + forgotten.num_examples
        return retained.weighted_sum(like=w).add_(forgotten.weighted_sum(like=w)).div_(total).add_(w)
    sign = -1.0 if how == "negated" else 1.0
    return forgotten.weighted_sum(like=w).mul_(sign / forgotten.num_examples).add_(w)


def _mean_of_both(one: BlockSum, other: BlockSum) -> dict[str, Tensor]:
    """Return the buffers' mean over all clients of two sums, by examples; of counters the largest."""
    share = other.num_examples / (one.num_examples + other.num_examples)
    pairs = zip(one.mean_buffers().items(), other.mean_buffers().values(), strict=True)
    return {
        name: torch.lerp(a, b, share) if a.is_floating_point() else torch.maximum(a, b)
        for (name, a), b in pairs
    }


@dataclass(frozen=True, kw_only=True)
class LocalRoutineSettings(Settings):
    """Settings of a local routine: its name, and its hyper-parameters in a table of their own, ``settings``."""

    routine: str
    settings: Annotated[Any, SettingsOf("routines", "routine", beside=False)] = None

    def contradictions(self, experiment: Experiment, path: str) -> Iterator[Contradiction]:
        """Refuse to forget by a stored update, which nobody has run a routine for."""
        requests = experiment.requests
        if requests is not None and requests.offline == "stored":
            right = 'must be "wait" or "exclude" with a local routine, which only the client itself can run'
            yield "requests.offline", requests.offline, right

    def label(self, name: str) -> str:
        """Return the routine's name; of one that is named by its address, its own."""
        return unlearning.method(self.routine).name if ":" in self.routine else self.routine


class LocalRoutine(UnlearningStrategy):
    """A centralised unlearning method, run by the clients that are to be forgotten."""

    settings_type = LocalRoutineSettings
    method: LocalRoutineSettings

    @cached_property
    def chosen(self) -> Chosen:
        """The routine and its hyper-parameters."""
        return Chosen(self.method.routine, self.method.settings)

    def plan(self, situation: Situation) -> RoundPlan:
        """Let all that is due be forgotten at once, alone or beside the retained clients."""
        forget = situation.to_forget
        if not forget:
            return situation.fedavg()
        train: tuple[int, ...] = ()
        if self.chosen.method.hosted == "weighted":
            train = situation.sample(max(situation.slots - len(forget), 0))
        return RoundPlan(situation.round, train, forget)

    def job(self, start: RoundStart, kind: str) -> Job | None:
        """Let the clients to forget run the routine."""
        return Job(routine=self.chosen) if kind == FORGET else None

    def combine(self, round: Round) -> Tensor:
        """Take the clients' results as the routine says, or average where nobody forgot."""
        if not round.forgets:
            return round.fedavg()
        return hosted_step(round.w, round.retained, round.forgetting, self.chosen.method.hosted)

    def buffers(self, round: Round) -> Mapping[str, Tensor]:
        """Return the mean of everybody's whose weights were averaged; a result that is negated leaves them alone.

        What the routine says must not be averaged, such as output filters, is merged as it says.
        """
        method = self.chosen.method
        if not round.forgets or method.hosted == "negated":
            return super().buffers(round)
        of_forgetting = BlockSum.of(round.forgetting)
        found = of_forgetting.mean_buffers()
        if method.hosted == "weighted" and round.retained:
            found = _mean_of_both(round.retained, of_forgetting)
        if method.merge is not None:
            results = round.forgetting
            found |= method.merge([c.buffers for c in results], [c.num_examples for c in results])
        return found

    def coefficients(self, round: Round) -> dict[int, float]:
        """Return the weight of each result in the mean."""
        total = sum(c.num_examples for c in round.forgetting)
        if self.chosen.method.hosted == "weighted":
            total += round.retained.num_examples
        return {c.client: c.num_examples / total for c in round.forgetting}

    @classmethod
    def describe(cls, method: LocalRoutineSettings) -> str:
        """Return what a certificate says of it."""
        return (
            f"a local routine, by which the clients to forget run the centralised method “{method.routine}” "
            f"({settings_in_words(method.settings)}) on the shared model, each with its own data, and the server "
            "merges the results into the model"
        )
