"""What clients do in a round instead of ordinary training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fedunlearn.federation.hosted_routine import Chosen


@dataclass(frozen=True)
class Job:
    """What one kind of a round's clients does: those that train, or those to forget.

    Attributes
    ----------
    routine : Chosen or None
        A centralised method and its hyper-parameters, run instead of training on the data that the client works with
        in this round; its result is what the update leads to. None: ordinary training.
    epochs : int or None
        Local epochs of ordinary training. None: the experiment's.
    lr : float or None
        Learning rate of ordinary training. None: the round's.
    start : Tensor or None
        The weights that these clients start from, shape ``(num_parameters,)``; their updates are measured from there.
        None: the global weights.
    tensors : Mapping[str, Tensor]
        Sent along to every one of them: float32, one-dimensional, by names that the routine looks up in
        ``Conditions.tensors``.
    own : Mapping[int, Mapping[str, Tensor]]
        Client → further ones, sent to it alone.
    returns : Mapping[str, int]
        Tensors that each of them sends back beside its update: name → length. The routine leaves them in
        ``Conditions.results``; they end up in ``Round.extras``.
    """

    routine: Chosen | None = None
    epochs: int | None = None
    lr: float | None = None
    start: Tensor | None = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    own: Mapping[int, Mapping[str, Tensor]] = field(default_factory=dict)
    returns: Mapping[str, int] = field(default_factory=dict)
