"""Methods that forget by what the server has kept: a client's updates, or its last weights, are subtracted."""

from dataclasses import dataclass

from fedunlearn.config.settings import Settings
from fedunlearn.server.history import Keeps
from fedunlearn.server.plan import RoundPlan
from fedunlearn.server.round import Needs
from fedunlearn.strategies.base import UnlearningStrategy


@dataclass(frozen=True)
class RememberingSettings(Settings):
    """How often a round is kept."""

    every: int = 1


class Remembering(UnlearningStrategy):
    """Subtracts a tenth of all updates of the clients to forget, and notes in the history that they are none."""

    settings_type = RememberingSettings
    method: RememberingSettings

    @classmethod
    def needs(cls, method):
        return Needs(online=False, keeps=Keeps("all", every=method.every))

    def plan(self, situation):
        if not situation.to_forget:
            return situation.fedavg()
        return RoundPlan(situation.round, (), situation.to_forget, asks=False)

    def combine(self, round):
        if not round.forgets:
            return round.fedavg()
        made = round.w.clone()
        for earlier in round.history.rounds():
            for client in set(round.plan.forget).intersection(round.history.clients(earlier)):
                made -= round.history.result(earlier, client).delta / 10
        for earlier in round.history.rounds():
            for client in round.history.clients(earlier):
                kept = round.history.result(earlier, client)
                kept.delta.zero_()
                round.history.replace(earlier, kept)
        return made


class Returning(Remembering):
    """The mean of the last weights of all clients that stay."""

    @classmethod
    def needs(cls, method):
        return Needs(online=False, keeps=Keeps("last", "weights", models=True))

    def combine(self, round):
        if not round.forgets:
            return round.fedavg()
        history = round.history
        last = {k: at for k in range(4) if k not in round.plan.forget and (at := history.last(k))}
        kept = [history.result(at, k) for k, at in last.items()]
        return sum(c.num_examples * c.delta for c in kept) / sum(c.num_examples for c in kept)
