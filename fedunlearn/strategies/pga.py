"""PGA: forget by projected gradient ascent.

Paper: Halimi, Kadhe, Rawat, Baracaldo, "Federated Unlearning: How to Efficiently Erase a Client in FL?", 2022,
arXiv 2207.05521.

Formula. With w_k the weights that client k came to when it last trained, n_k its examples then, and N = Σ n_k over
all clients that have contributed and are not forgotten yet, U included:

1. w_ref = (N·w − Σ_U n_u w_u) / (N − Σ_U n_u), which is the average without U where w is that of the w_k;
2. every u in U, in a round of U alone, starts from w_ref and climbs the loss of its own data, held by three balls:
   the gradient's, ‖g‖ ≤ ``clip``; one around w_ref, ‖w − w_ref‖ ≤ ρ; and one around w_u, of radius τ, outside of
   which it ends. That is the routine ``projected-ascent``;
3. w ← the average of the results by n_u, put back into the ball around w_ref.

ρ² = mean over 10 random initial weights of ‖w_ref − w_init‖²/3, or ``radius``². τ = ``stop`` · ‖w_ref − w_u‖, or
``stop-at``. Recovery is federated averaging without U.

Deviations and choices of ours: several clients at once, for whom there is one w_ref without all of them; the last
projection, which holds what a client sends to the ball that it was told; τ relative to where the ascent begins (the
authors' code stops at 1.48, of their MNIST network: ``stop-at``). A client that never trained has left nothing in w:
its result is not taken, and if there is nobody else in U, w stays. Where nobody but U has ever contributed, w_ref is
w. Of a client that has a part of its data forgotten, w_ref leaves out all that it contributed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

from torch import Tensor

from fedunlearn.config.conditions import Count, CountOrZero, Momentum, Rate
from fedunlearn.config.settings import Contradiction, Settings
from fedunlearn.federation.answers import FORGET
from fedunlearn.federation.hosted_routine import Chosen
from fedunlearn.federation.jobs import Job
from fedunlearn.federation.sums import BlockSum, Contribution
from fedunlearn.server.history import Keeps
from fedunlearn.server.plan import RoundPlan, Situation
from fedunlearn.server.round import Needs, Round, RoundStart
from fedunlearn.strategies.base import UnlearningStrategy
from fedunlearn.unlearning.projected_ascent import LAST, ProjectedAscent, projected

if TYPE_CHECKING:
    from fedunlearn.config import Experiment

INITS = 10
"""How many random initial weights the authors' radius is a mean over."""


@dataclass(frozen=True)
class PGASettings(Settings):
    """Settings of PGA; ``epochs`` is how many there are at most."""

    epochs: CountOrZero = 5
    batch_size: Count = 512
    lr: Rate = 0.01
    momentum: Momentum = 0.9
    clip: Rate = 5.0
    radius: Rate | None = None  # none: as the authors have it
    stop: Rate = 2.0
    stop_at: Rate | None = None  # none: relative, by stop

    def contradictions(self, experiment: Experiment, path: str) -> Iterator[Contradiction]:
        """Refuse to forget by a stored update, since the ascent is the client's own to make."""
        requests = experiment.requests
        if requests is not None and requests.offline == "stored":
            right = 'must be "wait" or "exclude" with PGA, whose ascent a client has to make itself'
            yield "requests.offline", requests.offline, right


def reference_weights(w: Tensor, total: int, forgotten: Iterable[Contribution]) -> Tensor:
    """Return w_ref = (N·w − Σ_U n_u w_u) / (N − Σ_U n_u), as a new tensor.

    Parameters
    ----------
    w : Tensor, shape (num_parameters,)
    total
        N, of U and of all others.
    forgotten
        Of each client in U, ``delta`` being its last weights w_u.
    """
    of_forgotten = BlockSum.of(forgotten)
    left = total - of_forgotten.num_examples
    return (w * total).sub_(of_forgotten.weighted_sum(like=w)).div_(left) if left else w.clone()


def authors_radius(w_ref: Tensor, initial: Iterable[Tensor]) -> float:
    """Return the root of a third of the mean squared distance of w_ref from initial weights."""
    squares = [float((w_ref - w).norm()) ** 2 for w in initial]
    return sqrt(sum(squares) / len(squares) / 3)


class PGA(UnlearningStrategy):
    """Projected gradient ascent at the clients to forget, from the average without them."""

    settings_type = PGASettings
    method: PGASettings

    @classmethod
    def needs(cls, method: PGASettings) -> Needs:
        """Return that each client's last weights are kept."""
        return Needs(keeps=Keeps(which="last", what="weights"))

    def plan(self, situation: Situation) -> RoundPlan:
        """Forget all that is due at once, in a round of U alone."""
        if not situation.to_forget:
            return situation.fedavg()
        return RoundPlan(situation.round, (), situation.to_forget)

    def job(self, start: RoundStart, kind: str) -> Job | None:
        """Let the clients to forget climb from w_ref, each with its own last weights to get away from."""
        if kind != FORGET:
            return None
        w_ref, last, radius = self._reference(start)
        s = self.method
        ascent = ProjectedAscent(
            s.epochs, s.batch_size, s.lr, s.momentum, s.clip, radius, s.stop, s.stop_at or 0.0
        )
        own = {number: {LAST: w_u.float()} for number, w_u in last.items()}
        return Job(routine=Chosen("projected-ascent", ascent), start=w_ref, own=own)

    def combine(self, round: Round) -> Tensor:
        """Average what the forgotten clients came to, or everybody where nobody is forgotten."""
        if not round.forgets:
            return round.fedavg()
        w_ref, last, radius = self._reference(round)
        results = BlockSum.of(c for c in round.forgetting if c.client in last)
        return projected(results.step_from(w_ref), w_ref, radius) if results else round.w.clone()

    def _reference(self, start: RoundStart) -> tuple[Tensor, dict[int, Tensor], float]:
        """Return w_ref, the last weights of whoever is to be forgotten, by number, and the radius."""
        history, owner, done = start.history, self.docket.parts.owner, self.docket.forgotten
        rounds = {k: t for t in history.rounds() for k in history.clients(t) if k not in done}
        forgotten = {owner(number) for number in start.plan.forget}.intersection(rounds)
        last = {k: history.result(rounds[k], k) for k in forgotten}
        total = sum(history.num_examples(t, k) for k, t in rounds.items())
        w_ref = reference_weights(start.w, total, last.values())
        radius = self.method.radius or authors_radius(w_ref, map(start.fresh, range(INITS)))
        return w_ref, {n: last[owner(n)].delta for n in start.plan.forget if owner(n) in last}, radius

    @classmethod
    def describe(cls, method: PGASettings) -> str:
        """Return what a certificate says of it."""
        ball = "the paper's radius" if method.radius is None else f"radius {method.radius:g}"
        end = (
            f"{method.stop:g} times as far from their last weights as at first"
            if method.stop_at is None
            else f"farther than {method.stop_at:g} from their last weights"
        )
        return (
            "PGA (projected gradient ascent), by which the last weights of the clients to forget are subtracted from "
            "the average, and these clients climb the loss of their own data from what is left, within a ball of "
            f"{ball} around it, for at most {method.epochs} epochs and until they are {end}; the mean of what they "
            "come to is the new model"
        )
