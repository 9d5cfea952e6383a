"""From what a strategy reports of a round to lines of metrics.jsonl."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from fedunlearn.runs.metrics_log import Metric


class Report(Protocol):
    """What is read of a round's report; its metrics are named ``<split>-<metric>[@<entity>]``."""

    @property
    def round(self) -> int: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...
    @property
    def losses(self) -> Mapping[int, float]: ...
    @property
    def coefficients(self) -> Mapping[int, float]: ...
    @property
    def seconds(self) -> float: ...


def round_metrics(branch: str, report: Report) -> list[Metric]:
    """Return a round's numbers: of the global model, then of the clients."""

    def line(entity: str, split: str, metric: str, value: float) -> Metric:
        return Metric(branch, report.round, entity, split, metric, value, report.seconds)

    lines = [line("server", "round", "seconds", report.seconds)]
    for name, value in report.metrics.items():
        quantity, _, entity = name.partition("@")
        split, _, metric = quantity.partition("-")
        lines.append(line(entity or "server", split, metric, value))
    # A client may say anything of its loss; what is no number is left out, as one that it does not tell.
    losses = {k: loss for k, loss in sorted(report.losses.items()) if math.isfinite(loss)}
    lines += [line(f"client-{k}", "train", "loss", loss) for k, loss in losses.items()]
    lines += [line(f"client-{k}", "forget", "coefficient", c) for k, c in report.coefficients.items()]
    return lines
