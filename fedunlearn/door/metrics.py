"""What a monitoring system reads, in Prometheus' text format 0.0.4."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedunlearn.requests import LIVE_BRANCH, STATES, LeaseRecord, Ledger

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
METHODS = frozenset({"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"})
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds

Labels = tuple[tuple[str, str], ...]


class Answers:
    """How many answers the door gave since it started, and how long they took."""

    def __init__(self) -> None:
        self._counts: Counter[Labels] = Counter()
        self._buckets = [0] * len(BOUNDS)
        self._seconds = 0.0

    def add(self, method: str, status: int, seconds: float) -> None:
        """Count one; a method that nobody has heard of is "other", for callers can invent as many as they like."""
        self._counts[("method", method if method in METHODS else "other"), ("status", str(status))] += 1
        self._seconds += seconds
        for index, bound in enumerate(BOUNDS):
            self._buckets[index] += seconds <= bound

    def text(self) -> str:
        """Return the counts as Prometheus reads them."""
        total = self._counts.total()
        lines = [
            *_metric("fedunlearn_door_answers_total", "counter", "Answers given.", dict(self._counts)),
            "# HELP fedunlearn_door_seconds Time from a request's head to its answer.",
            "# TYPE fedunlearn_door_seconds histogram",
            *(
                f'fedunlearn_door_seconds_bucket{{le="{bound:g}"}} {count}'
                for bound, count in zip(BOUNDS, self._buckets, strict=True)
            ),
            f'fedunlearn_door_seconds_bucket{{le="+Inf"}} {total}',
            f"fedunlearn_door_seconds_sum {self._seconds:.6f}",
            f"fedunlearn_door_seconds_count {total}",
        ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Federation:
    """What the ledger and the run directory say of a federation at one moment.

    Attributes
    ----------
    states : Mapping[str, int]
        Requests by state.
    oldest_open : float or None
        Unix seconds at which the oldest request that has not ended arrived.
    planned, completed : int
        The last round with a plan, and the last with a checkpoint; 0 where there is none.
    trail : int
        Entries of the audit trail.
    lease : LeaseRecord or None
        Who holds the lease or held it last.
    """

    states: Mapping[str, int]
    oldest_open: float | None
    planned: int
    completed: int
    trail: int
    lease: LeaseRecord | None

    @classmethod
    def read(cls, ledger: Ledger, folder: Path) -> Federation:
        """Read it; nothing that a server writes meanwhile has to wait."""
        counts = ledger.counts(LIVE_BRANCH)
        head = ledger.head(LIVE_BRANCH)
        lease = ledger.lease(LIVE_BRANCH)
        return cls(
            states={state: counts.get(state, 0) for state in STATES},
            oldest_open=ledger.oldest_open(LIVE_BRANCH),
            planned=ledger.last_round(LIVE_BRANCH),
            completed=max(_checkpoint_rounds(folder / "checkpoints"), default=0),
            trail=0 if head is None else head.entry,
            lease=lease,
        )

    def text(self, now: float | None = None) -> str:
        """Return it as Prometheus reads it; `now` in Unix seconds."""
        now = time.time() if now is None else now
        states: dict[Labels, float] = {(("state", state),): count for state, count in self.states.items()}
        open_age = 0.0 if self.oldest_open is None else max(0.0, now - self.oldest_open)
        lines = [
            *_metric("fedunlearn_requests", "gauge", "Forget requests by state.", states),
            *_gauge(
                "oldest_open_request_age_seconds", "Age of the oldest request that has not ended.", open_age
            ),
            *_gauge("round_planned", "Last round with a plan.", self.planned),
            *_gauge("round_completed", "Last round with a checkpoint.", self.completed),
            *_gauge("trail_entries", "Entries of the audit trail.", self.trail),
        ]
        if (lease := self.lease) is not None:
            taken = max(0.0, now - lease.taken_at)
            alive = float(lease.held(now))
            lines += _gauge("lease_token", "How often a server took the lease.", lease.token)
            lines += _gauge("lease_holder_age_seconds", "Since the last server took the lease.", taken)
            lines += _gauge("lease_held", "1 while its holder renews it: a server is at work.", alive)
        return "\n".join(lines) + "\n"


def _checkpoint_rounds(folder: Path) -> Iterable[int]:
    pattern = re.compile(re.escape(LIVE_BRANCH) + r"-r(\d{4,})\.safetensors")
    names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    return [int(found[1]) for name in names if (found := pattern.fullmatch(name))]


def _gauge(name: str, help_: str, value: float) -> list[str]:
    return _metric(f"fedunlearn_{name}", "gauge", help_, {(): value})


def _metric(name: str, kind: str, help_: str, values: Mapping[Labels, float]) -> list[str]:
    lines = [f"# HELP {name} {help_}", f"# TYPE {name} {kind}"]
    for labels, value in values.items():
        inside = ",".join(f'{key}="{text}"' for key, text in labels)
        lines.append(f"{name}{{{inside}}} {value:.15g}" if inside else f"{name} {value:.15g}")
    return lines
