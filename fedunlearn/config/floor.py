"""``[floor]``: the retrainings that say how far retrained models are from each other."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedunlearn.config.conditions import Count


@dataclass(frozen=True, kw_only=True)
class FloorConfig:
    """``[floor]``: a gap to the retrained model below that between retrainings says nothing.

    ``given_retrainings`` is what the file says, None where it leaves the choice: it is made when the data are there,
    by the rule of ``fedunlearn.simulation.retrainings``. ``retrainings`` is a number to compute with in any case.
    """

    given_retrainings: Count | None = field(default=None, metadata={"key": "retrainings"})

    @property
    def retrainings(self) -> int:
        """How many models are retrained with other seeds beside each retrained one; 1 while nothing is chosen."""
        return 1 if self.given_retrainings is None else self.given_retrainings
