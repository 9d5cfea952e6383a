"""PUF: forget by negated pseudo-gradients.

Paper: Mora, Mazzocca, Montanari, Bellavista, "Federated Unlearning Made Practical: Seamless Integration via
Negated Pseudo-Gradients", arXiv 2504.05822.

Formula. Clients to forget, U, train exactly as usual from the same w as everyone. With Δ_k = w_k − w, n_k
examples, S⁺ the retained participants and η the unlearning rate (``scale``):

- regular, in one round with everyone, N = Σ_{S⁺} n_k + Σ_U n_u:
  w ← w + Σ_{S⁺} (n_k/N) Δ_k − η Σ_U (n_u/N) Δ_u
- special, in a round of U alone, N_U = Σ_U n_u:
  w ← w − η Σ_U (n_u/N_U) Δ_u

Recovery is federated averaging without U; the learning-rate schedule goes on. Defaults: η = 2 (special),
20 (regular), one local epoch.

Deviations and choices of ours: the server negates, so the server sees and is trusted with single updates of
forgotten clients, and no client has to be trusted with the scale; with what it is, docs/trust.md says. Under partial
participation U takes |U| slots of the regular round and the rest is sampled from the retained clients (with
|U| ≥ slots nobody else takes part).
Buffers such as BatchNorm statistics are never negated (see :class:`fedunlearn.strategies.base.UnlearningStrategy`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from torch import Tensor

from fedunlearn.errors import ConfigError
from fedunlearn.federation.sums import BlockSum, Contribution
from fedunlearn.server.plan import RoundPlan, Situation
from fedunlearn.strategies.base import UnlearningStrategy, fedavg

Mode = Literal["regular", "special"]


def puf_step(
    w: Tensor,
    retained: BlockSum,
    forgetting: Sequence[Contribution],
    *,
    mode: Mode,
    scale: float,
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
        η ≥ 0, a plain multiplier: no clipping, no projection.

    Notes
    -----
    ``scale=0`` is the identity in special mode. In regular mode it is federated averaging damped by
    Σ_{S⁺} n_k/N, which is *not* federated averaging without U.
    """
    negated = BlockSum.of(forgetting)
    if mode == "special":
        if not negated:
            return w.clone()
        return negated.weighted_sum(like=w).mul_(-scale / negated.num_examples).add_(w)
    total = retained.num_examples + negated.num_examples
    if not total:
        return w.clone()
    step = retained.weighted_sum(like=w).add_(negated.weighted_sum(like=w), alpha=-scale)
    return step.div_(total).add_(w)


class PUF(UnlearningStrategy):
    """Negated pseudo-gradients, for any number of clients at once.

    Parameters
    ----------
    mode, scale
        See :func:`puf_step`.

    Raises
    ------
    ConfigError
        There is no such mode, or the scale is negative or no number.
    """

    def __init__(self, *args: Any, mode: Mode = "special", scale: float = 2.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if mode not in get_args(Mode):
            raise ConfigError(f"mode = {mode!r}: must be one of {', '.join(map(repr, get_args(Mode)))}")
        if not scale >= 0:
            raise ConfigError(f"scale = {scale!r}: must be a number >= 0")
        self.mode: Mode = mode
        self.scale = scale

    def plan(self, situation: Situation) -> RoundPlan:
        """Forget all that is due at once: alone (special), or beside sampled retained clients (regular)."""
        forget = situation.to_forget
        if not forget:
            return situation.fedavg()
        train: tuple[int, ...] = ()
        if self.mode == "regular":
            train = situation.sample(max(situation.slots - len(forget), 0))
        return RoundPlan(situation.round, train, forget)

    def combine(self, w: Tensor, retained: BlockSum, forgetting: Sequence[Contribution]) -> Tensor:
        """Take the PUF step, or average where nobody is forgotten."""
        if not forgetting:
            return fedavg(w, retained)
        return puf_step(w, retained, forgetting, mode=self.mode, scale=self.scale)

    def coefficients(self, retained: BlockSum, forgetting: Sequence[Contribution]) -> dict[int, float]:
        """Return the factor on each Δ_u: scale · n_u/N in regular mode, scale · n_u/N_U in special mode."""
        total = sum(c.num_examples for c in forgetting)
        if self.mode == "regular":
            total += retained.num_examples
        return {c.client: self.scale * c.num_examples / total for c in forgetting}
