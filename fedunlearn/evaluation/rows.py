"""A row of the scorecard: what a model is at one moment, beside the retrained one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from fedunlearn.evaluation.floors import Outlier

Values = dict[str, float | None]

AT = ("request", "unlearned", "recovered", "compare", "cap", "final")
"""When a row was taken: on arrival of the request, after the unlearning round, at recovery, at PUF's recovery
round, at the cap on recovery rounds, at the end of the run."""


@dataclass(frozen=True)
class Forget:
    """What was forgotten.

    Attributes
    ----------
    clients : tuple of int
        Whose data; as a whole, or what of them ``samples`` and ``classes`` say.
    samples : float, tuple of int or None
        A share of each client's rows, or single rows; None: all of them, or not the same for every client.
    classes : tuple of int or None
        Rows of these classes alone; None: of every class, or not the same for every client.
    parts : tuple of int
        The numbers by which partition and metrics call the parts of clients' data; of whole clients their own.
    words : str
        The same to be read, such as "class 2 of clients 0 and 1"; empty where clients are forgotten as a whole.
    """

    clients: tuple[int, ...]
    samples: float | tuple[int, ...] | None = None
    classes: tuple[int, ...] | None = None
    parts: tuple[int, ...] = ()
    words: str = ""


@dataclass(frozen=True)
class Scale:
    """PUF's multiplier.

    Attributes
    ----------
    raw : float
        η_u as configured.
    effective : dict of int to float
        What each forgotten client's own update was multiplied by.
    group : float
        What their weighted mean update was multiplied by.
    """

    raw: float
    effective: dict[int, float]
    group: float


@dataclass(frozen=True)
class Cost:
    """What it took from the request on: local epochs over all clients, bytes on the wire, wall seconds.

    ``cached`` says that the seconds are recorded ones, from the run that trained the branch.
    """

    client_epochs: int
    bytes_up: int
    bytes_down: int
    seconds: float
    cached: bool = False


@dataclass(frozen=True)
class Row:
    """One method, seed and request at one moment.

    Attributes
    ----------
    method, label : str
        Name of the method; name of its row, which tells two settings of one method apart.
    seed : int
        The experiment's.
    request : str or None
        Id of the request; ``target`` is the number of its target set or request group.
    at : str
        One of ``AT``.
    round : int
        Round after which the model was measured.
    metrics, gap, floor : dict of str to float or None
        By names of metrics; ``gap`` from ``gaps``, ``floor`` the median of ``floors``.
    floors : dict of str to sequence of float or None
        By name the distance of every further retraining to the retrained model, from ``evaluation.floors``.
    outliers : tuple of Outlier
        Retrainings that are far from all others by a measure.
    recovery_rounds, recovery_rounds_authors : int or None
        Rounds from the unlearning round, which counts, to recovery by our rule (validation quality within
        epsilon of retrain's) and by the authors' (test quality); None when it did not happen.
    recovered : bool or None
        None where recovery was not awaited (original, retrain, a superseded request); False is censored.
    reason : str or None
        Why something above is None.
    diverged : bool
        Whether the model's weights were no numbers by then: nothing could be measured.
    failed : bool
        Whether the forgetting failed with an error: nothing was measured.
    per_client, per_class : list of float or None
        Training quality on each client's data, test quality on each class (%), where the experiment asks.
    """

    method: str
    label: str
    seed: int
    request: str | None
    target: int
    forget: Forget
    at: str
    round: int
    metrics: Values
    gap: Values
    floor: Values
    cost: Cost
    recovery_rounds: int | None = None
    recovery_rounds_authors: int | None = None
    recovered: bool | None = None
    scale: Scale | None = None
    reason: str | None = field(default=None)
    diverged: bool = False
    failed: bool = False
    per_client: list[float | None] | None = None
    per_class: list[float | None] | None = None
    floors: dict[str, tuple[float | None, ...]] = field(default_factory=dict)
    outliers: tuple[Outlier, ...] = ()

    def __post_init__(self) -> None:
        if self.at not in AT:
            raise ValueError(f"at = {self.at!r}: must be one of {list(AT)}")

    def as_dict(self) -> dict[str, Any]:
        """Return the row as it stands in ``scorecard.json``.

        A breakdown that nobody asked for is left out, ``diverged`` and ``failed`` where they are false, ``outliers``
        where there are none, and of whole clients what is there to tell parts of them.
        """
        unasked = [name for name in ("per_client", "per_class") if getattr(self, name) is None]
        unasked += [name for name in ("diverged", "failed", "outliers") if not getattr(self, name)]
        found = {name: value for name, value in asdict(self).items() if name not in unasked}
        if not self.forget.parts:
            found["forget"] = {"clients": self.forget.clients, "samples": None, "classes": None}
        return found
