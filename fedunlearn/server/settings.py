"""What every strategy needs to know of its federation, whatever its method."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedunlearn.config import TrainConfig, slots_of
from fedunlearn.errors import ConfigError
from fedunlearn.federation.robust import Aggregation
from fedunlearn.parts import NONE as NO_PARTS
from fedunlearn.parts import Parts
from fedunlearn.server.recovery import RecoveryRule


@dataclass(frozen=True)
class Settings:
    """What every strategy needs to know of the federation, whatever its method.

    Attributes
    ----------
    num_clients : int
    train : TrainConfig
        Learning-rate schedule and ``rounds``.
    seed : int
        Training seed: sampling here, batches at the clients.
    participation, quorum : float
        Share of all clients in a round; share of the clients that train in a round that must answer. If a
        client to forget does not answer, its forgetting is tried again in a later round.
    aggregation : Aggregation
        How the updates of the clients that trained become one step, for every method that takes their sum.
    recovery : RecoveryRule
    stop_when_recovered : bool
        Stop after ``train.rounds`` as soon as no request is open; otherwise go on to the last round asked for.
    max_attempts : int
        After so many rounds in which its clients did not answer, a forget request has failed.
    parts : Parts
        The parts of clients' data that requests may name.

    Raises
    ------
    ConfigError
        A value means nothing.
    """

    num_clients: int
    train: TrainConfig
    seed: int
    participation: float = 1.0
    quorum: float = 1.0
    aggregation: Aggregation = field(default_factory=Aggregation)
    recovery: RecoveryRule = field(default_factory=RecoveryRule)
    stop_when_recovered: bool = False
    max_attempts: int = 3
    parts: Parts = NO_PARTS

    def __post_init__(self) -> None:
        if self.num_clients < 1:
            raise ConfigError(f"num_clients = {self.num_clients!r}: must be at least 1")
        if not 0 < self.participation <= 1:
            raise ConfigError(f"participation = {self.participation!r}: must be above 0 and at most 1")
        if not 0 <= self.quorum <= 1:
            raise ConfigError(f"quorum = {self.quorum!r}: must be between 0 and 1")
        if self.max_attempts < 1:
            raise ConfigError(f"max_attempts = {self.max_attempts!r}: must be at least 1")

    @property
    def slots(self) -> int:
        """Clients per round."""
        return slots_of(self.num_clients, self.participation)
