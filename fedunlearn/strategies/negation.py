"""NoT: forget by negating a layer.

Paper: Khalil et al., "NoT: Federated Unlearning via Weight Negation", CVPR 2025, arXiv 2503.05657.

Formula. In the round after the request, once for everybody who is to be forgotten, for every layer l that is chosen:
w[l] ← −w[l]. Nobody trains in that round and nobody is sent anything. Recovery is federated averaging without U. By
default the first layer's weights are negated; its bias and all buffers stay as they are.

Deviations and choices of ours: the negation has a round to itself, so that it is planned, guarded and on record like
any other step that forgets. The paper allows a set of layers that is an antichain of the network's graph; ``layers``
names parameters, and whether they are one is up to whoever names them. A later request negates the layers of the
recovered model again.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedunlearn.config.settings import Settings
from fedunlearn.errors import ConfigError
from fedunlearn.models.layout import Layout
from fedunlearn.server.plan import RoundPlan, Situation
from fedunlearn.server.round import Needs, Round
from fedunlearn.strategies.base import UnlearningStrategy


@dataclass(frozen=True)
class NoTSettings(Settings):
    """Settings of NoT."""

    layers: tuple[str, ...] = ()  # parameters to negate, such as "0.weight"; none: the first layer's weights


def negated(w: Tensor, layout: Layout, layers: tuple[str, ...] = ()) -> Tensor:
    """Return weights with the parameters of these names negated, as a new tensor.

    Parameters
    ----------
    w : Tensor, shape (num_parameters,)
    layout
        Of these weights.
    layers
        Names of parameters. Default: the first that is a matrix or a kernel and called ``weight``.

    Raises
    ------
    ConfigError
        There is no such parameter.
    """
    names = layers or (first_layer(layout),)
    made = w.clone()
    for name in names:
        if name not in layout:
            raise ConfigError(f"layers: the model has no parameter {name!r}; it has {', '.join(layout)}")
        layout.view(made, name).neg_()
    return made


def first_layer(layout: Layout) -> str:
    """Return the name of the first layer's weights; of a model without layers, of its first parameter."""
    weights = (name for name, at in layout.items() if name.endswith("weight") and len(at.shape) > 1)
    return next(weights, next(iter(layout)))


class NoT(UnlearningStrategy):
    """Negation of the first layer's weights, or of other layers'."""

    settings_type = NoTSettings
    method: NoTSettings

    @classmethod
    def needs(cls, method: NoTSettings) -> Needs:
        """Return that nobody takes part."""
        return Needs(online=False)

    def plan(self, situation: Situation) -> RoundPlan:
        """Forget all that is due at once, in a round in which nobody is asked for anything."""
        if not situation.to_forget:
            return situation.fedavg()
        return RoundPlan(situation.round, (), situation.to_forget, asks=False)

    def combine(self, round: Round) -> Tensor:
        """Negate, or average where nobody is forgotten."""
        return negated(round.w, round.layout, self.method.layers) if round.forgets else round.fedavg()

    @classmethod
    def describe(cls, method: NoTSettings) -> str:
        """Return what a certificate says of it."""
        which = (
            f"the parameters {', '.join(method.layers)}"
            if method.layers
            else "the weights of the first layer"
        )
        return f"NoT (weight negation), by which {which} of the model change sign; no client takes part"
