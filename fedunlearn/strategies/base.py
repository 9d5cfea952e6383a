"""The contract of an unlearning strategy: what the author of a method reads."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from fedunlearn.config.toml_tree import plain
from fedunlearn.federation.jobs import Job
from fedunlearn.plurals import joined
from fedunlearn.server.loop import RoundLoop
from fedunlearn.server.plan import RoundPlan, Situation
from fedunlearn.server.round import Needs, Round, RoundStart, State


class UnlearningStrategy(RoundLoop):
    """Federated averaging that can be asked to forget; a method overrides :meth:`plan` and :meth:`combine`.

    It is made with the parameters of :class:`~fedunlearn.server.loop.RoundLoop`, which runs it. A method with
    settings of its own has their dataclass as ``settings_type``, and finds them in ``self.method``. A method that
    keeps something between rounds hands it over in :meth:`state`, and goes on in the same bits after an interruption.
    """

    forgets: ClassVar[bool] = True
    """Whether the method removes a client's influence, or only leaves the client out from then on."""

    @classmethod
    def needs(cls, method: Any) -> Needs:
        """Return what the method cannot do without, with these settings. Default: nothing in particular."""
        return Needs()

    def plan(self, situation: Situation) -> RoundPlan:
        """Decide who trains and who is forgotten in this round. Default: plain federated averaging."""
        return situation.fedavg()

    def job(self, start: RoundStart, kind: str) -> Job | None:
        """Return what the clients that train, or those to forget, do instead. Default: ordinary training.

        Asked once for each kind that takes part in the round, and again where the round is executed again after an
        interruption: what is returned depends on `start`, the settings and the method's own state alone.

        Parameters
        ----------
        start
            The round before anything is sent.
        kind
            ``train`` or ``train.forget``: :data:`fedunlearn.federation.answers.TRAIN` and ``FORGET``.
        """
        return None

    def combine(self, round: Round) -> Tensor:
        """Return the next global weights as a new tensor of the same shape. Default: federated averaging."""
        return round.fedavg()

    def buffers(self, round: Round) -> Mapping[str, Tensor]:
        """Return the next global buffers: the retained clients' mean, or as they were where nobody trained.

        Never negated: an extrapolated variance can become negative.
        """
        return round.retained.mean_buffers() if round.retained else dict(round.model.buffers)

    def coefficients(self, round: Round) -> dict[int, float]:
        """Return the factor that multiplied each forgotten client's update, for the record."""
        return {}

    def state(self) -> State:
        """Return what the method keeps between rounds: tensors by name, and whatever JSON can say. Default: nothing.

        It is in the checkpoint of every round, and comes back through :meth:`load_state` after an interruption, or
        where the guard of a live federation rolls a round back.
        """
        return {}

    def load_state(self, state: State) -> None:
        """Take over what :meth:`state` has returned; of an empty one nothing."""

    @classmethod
    def describe(cls, method: Any) -> str:
        """Return what a certificate says of the method with these settings, to follow "The federation forgets by"."""
        return f"the method “{cls.__name__}” ({_first_line(cls)}), with {settings_in_words(method)}"


def settings_in_words(settings: Any) -> str:
    """Return all of a method's settings on one line, such as ``"rate 0.5 and rounds 3"``; or that it has none."""
    return joined([f"{key} {value}" for key, value in plain(settings).items()]) or "no settings"


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or cls.__name__).partition("\n")[0].rstrip(".")
