"""PUF: forget by negated pseudo-gradients.

Paper: Mora, Mazzocca, Montanari, Bellavista, "Federated Unlearning Made Practical: Seamless Integration via
Negated Pseudo-Gradients", arXiv 2504.05822.

Formula. Clients to forget, U, train exactly as usual from the same w as everyone. With Δ_k = w_k − w, n_k
examples, S⁺ the retained participants, η_u the unlearning rate (``scale``) and η_r that of the others
(``retain-rate``):

- regular, in one round with everyone, N = Σ_{S⁺} n_k + Σ_U n_u:
  w ← w + η_r Σ_{S⁺} (n_k/N) Δ_k − η_u Σ_U (n_u/N) Δ_u
- special, in a round of U alone, N_U = Σ_U n_u:
  w ← w − η_u Σ_U (n_u/N_U) Δ_u

Recovery is federated averaging without U; the learning-rate schedule goes on. Defaults: η_u = 2 (special),
20 (regular), η_r = 1, one local epoch.

Deviations and choices of ours: the server negates, so the server sees and is trusted with single updates of
forgotten clients, and no client has to be trusted with the scale; with what it is, docs/trust.md says. Under partial
participation U takes |U| slots of the regular round and the rest is sampled from the retained clients (with
|U| ≥ slots nobody else takes part).
Buffers such as BatchNorm statistics are never negated (see :class:`fedunlearn.strategies.base.UnlearningStrategy`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from torch import Tensor

from fedunlearn.config.conditions import at_least
from fedunlearn.config.settings import Contradiction, Settings
from fedunlearn.federation.sums import BlockSum, Contribution
from fedunlearn.server.plan import RoundPlan, Situation
from fedunlearn.server.round import Round
from fedunlearn.strategies.base import UnlearningStrategy

if TYPE_CHECKING:
    from fedunlearn.config import Experiment

Mode = Literal["regular", "special"]


@dataclass(frozen=True)
class PUFSettings(Settings):
    """Settings of PUF; a scale that is left out is the authors' for the mode, 2 (special) or 20 (regular)."""

    mode: Mode = "special"
    scale: Annotated[float, at_least(0)] | None = None
    retain_rate: Annotated[float, at_least(0)] = (
        1.0  # of "regular": what the retained clients' sum is multiplied by
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale is None:  # a resolved file names it, whatever a later version's default may be
            object.__setattr__(self, "scale", 2.0 if self.mode == "special" else 20.0)

    def contradictions(self, experiment: Experiment, path: str) -> Iterator[Contradiction]:
        """Refuse a rate for clients that take no part."""
        if self.mode == "special" and self.retain_rate != 1:
            right = 'must be 1 with mode = "special", where no client is retained; it belongs to "regular"'
            yield f"{path}.retain-rate", self.retain_rate, right

    @property
    def factor(self) -> float:
        """The scale, which is always there by now."""
        assert self.scale is not None
        return self.scale

    def label(self, name: str) -> str:
        """Return name, mode and factors, such as "puf-special-2"."""
        rate = "" if self.retain_rate == 1 else f"-{_number(self.retain_rate)}"
        return f"{name}-{self.mode}-{_number(self.scale)}{rate}"


def _number(value: float | None) -> str:
    return repr(value).removesuffix(".0")


def puf_step(
    w: Tensor,
    retained: BlockSum,
    forgetting: Sequence[Contribution],
    *,
    mode: Mode,
    scale: float,
    retain_rate: float = 1.0,
) -> Tensor:
    """Return the weights after one PUF round, as a new tensor.

    Parameters
    ----------
    w : Tensor, shape (num_parameters,)
        The weights every participant started from.
    retained : BlockSum
        Σ n_k Δ_k and Σ n_k of the retained participants. Special leaves them out of the step.
    forgetting : sequence of Contribution
        One per client to forget; the order does not matter, not even to the last bit.
    mode
        ``regular`` or ``special``, see the module's docstring.
    scale
        η_u ≥ 0, a plain multiplier: no clipping, no projection.
    retain_rate
        η_r ≥ 0, of the retained sum alone.

    Notes
    -----
    ``scale=0`` is the identity in special mode. In regular mode it is federated averaging damped by
    Σ_{S⁺} n_k/N, which is *not* federated averaging without U. With ``retain_rate=0``, regular with
    c·N/N_U is special with c.
    """
    negated = BlockSum.of(forgetting)
    if mode == "special":
        if not negated:
            return w.clone()
        return negated.weighted_sum(like=w).mul_(-scale / negated.num_examples).add_(w)
    total = retained.num_examples + negated.num_examples
    if not total:
        return w.clone()
    step = retained.weighted_sum(like=w)
    if retain_rate != 1:
        step.mul_(retain_rate)
    step.add_(negated.weighted_sum(like=w), alpha=-scale)
    return step.div_(total).add_(w)


class PUF(UnlearningStrategy):
    """Negated pseudo-gradients, for any number of clients at once."""

    settings_type = PUFSettings
    method: PUFSettings

    def plan(self, situation: Situation) -> RoundPlan:
        """Forget all that is due at once: alone (special), or beside sampled retained clients (regular)."""
        forget = situation.to_forget
        if not forget:
            return situation.fedavg()
        train: tuple[int, ...] = ()
        if self.method.mode == "regular":
            train = situation.sample(max(situation.slots - len(forget), 0))
        return RoundPlan(situation.round, train, forget)

    def combine(self, round: Round) -> Tensor:
        """Take the PUF step, or average where nobody is forgotten."""
        if not round.forgets:
            return round.fedavg()
        puf = self.method
        return puf_step(
            round.w,
            round.retained,
            round.forgetting,
            mode=puf.mode,
            scale=puf.factor,
            retain_rate=puf.retain_rate,
        )

    def coefficients(self, round: Round) -> dict[int, float]:
        """Return the factor on each Δ_u: scale · n_u/N in regular mode, scale · n_u/N_U in special mode."""
        total = sum(c.num_examples for c in round.forgetting)
        if self.method.mode == "regular":
            total += round.retained.num_examples
        return {c.client: self.method.factor * c.num_examples / total for c in round.forgetting}

    @classmethod
    def describe(cls, method: PUFSettings) -> str:
        """Return what a certificate says of it."""
        alone, others = "in a round of their own", "in a round together with the other clients"
        how = alone if method.mode == "special" else others
        if method.retain_rate != 1:
            how += f", whose updates count {method.retain_rate:g} times"
        return (
            "PUF (negated pseudo-gradients), by which the clients to forget train once more as usual and their "
            f"updates, times {method.scale:g}, are subtracted from the model {how}"
        )
