"""The contract of an unlearning strategy: what the author of a method reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from fedunlearn.federation.payload import ModelState
from fedunlearn.federation.sums import BlockSum, Contribution
from fedunlearn.server.loop import RoundLoop
from fedunlearn.server.plan import RoundPlan, Situation


def fedavg(w: Tensor, retained: BlockSum) -> Tensor:
    """Return w + Σ n_k Δ_k / Σ n_k as a new tensor, or a copy of w if nobody contributed."""
    if not retained:
        return w.clone()
    return retained.step_from(w)


class UnlearningStrategy(RoundLoop):
    """Federated averaging that can be asked to forget; a method overrides :meth:`plan` and :meth:`combine`.

    It is made with the parameters of :class:`~fedunlearn.server.loop.RoundLoop`, which runs it. A method with
    settings of its own has their dataclass as ``settings_type``, and finds them in ``self.method``.
    """

    forgets: ClassVar[bool] = True
    """Whether the method removes a client's influence, or only leaves the client out from then on."""
    needs_individual: ClassVar[bool] = False
    """Whether :meth:`combine` takes the retained updates one by one instead of summed."""

    # -- what a method decides ----------------------------------------------------------------------------

    def plan(self, situation: Situation) -> RoundPlan:
        """Decide who trains and who is forgotten in this round. Default: plain federated averaging."""
        return situation.fedavg()

    def combine(self, w: Tensor, retained: Any, forgetting: Sequence[Contribution]) -> Tensor:
        """Return the next global weights as a new tensor. Default: w + Σ n_k Δ_k / Σ n_k.

        Parameters
        ----------
        w : Tensor, shape (num_parameters,)
            The weights that all clients of the round started from; not to be changed.
        retained : BlockSum, or list[Contribution] where ``needs_individual``
        forgetting : sequence of Contribution, in client order
            Empty in ordinary rounds, and in rounds whose forgetting had to be put off.
        """
        return fedavg(w, retained)

    def buffers(
        self, model: ModelState, retained: BlockSum, forgetting: Sequence[Contribution]
    ) -> Mapping[str, Tensor]:
        """Return the next global buffers: the retained clients' mean, or as they were where nobody trained.

        Never negated: an extrapolated variance can become negative.
        """
        return retained.mean_buffers() if retained else dict(model.buffers)

    def told(self, plan: RoundPlan) -> Mapping[str, Any]:
        """Return what the clients of a round are told beside round, learning rate and seed."""
        return {}

    def coefficients(self, retained: Any, forgetting: Sequence[Contribution]) -> dict[int, float]:
        """Return the factor that multiplied each forgotten client's update, for the record."""
        return {}
