"""The parts of a made-up scorecard row, for ``example_run``."""

from collections.abc import Sequence
from typing import Any

from fedunlearn.evaluation.rows import Cost, Scale

Json = dict[str, Any]
Point = dict[str, float]  # split → accuracy

CAP = 15
PUF, NATURAL = "puf-special-2", "natural"
REMEMBERED = (27.0, 9.0, 40.0, 14.0, 22.0, 6.0, 18.0, 4.0, 11.0, 31.0)  # points above the oracle, by client


def mean_above(clients: Sequence[int]) -> float:
    """Mean points above the oracle that the original is on these clients' data."""
    return sum(REMEMBERED[client] for client in clients) / len(clients)


def metrics_of(point: Point) -> dict[str, float | None]:
    """Every measure of a model, made up from its two accuracies."""
    forget, test = point["forget"], point["test"]
    accuracies: dict[str, float | None] = {"forget_accuracy": forget, "retain_accuracy": test + 2.4}
    accuracies |= {"test_accuracy": test, "test_loss": (100 - test) / 30, "mia_svc_matched": None}
    accuracies |= {"mia_yeom_matched": 20 + forget * 0.4}
    return accuracies | {"mia_svc": 30 + forget * 0.3, "mia_auc": 50 + (forget - test) / 3}


def cost_of(epochs: int, *, cached: bool = False) -> Cost:
    """Return the cost of so many client-epochs."""
    return Cost(epochs, epochs * 82_000, epochs * 82_000, epochs * 0.09, cached)


def request_of(
    name: str, clients: Sequence[int], at_round: int, recovered: int | None, otherwise: str
) -> Json:
    """Return a request as branches.json tells it."""
    state = "forgotten" if recovered else {"capped": "forgotten-unrecovered"}.get(otherwise, otherwise)
    asked = {"id": name, "clients": list(clients), "at_round": at_round, "unlearned_round": at_round + 1}
    ended = {"outcome": "recovered" if recovered else otherwise, "ended_round": recovered or at_round + CAP}
    return {**asked, **ended, "attempts": 0, "recovered_round_authors": recovered, "state": state}


def outcome_of(label: str, at: str, round: int, clients: Sequence[int], recovery: int | None) -> Json:
    """Return what tells a method's row from the original's."""
    method = "puf" if label == PUF else label
    scale = Scale(2.0, dict.fromkeys(clients, 2.0), 2.0) if label == PUF else None
    found = {
        "recovery_rounds": recovery,
        "recovery_rounds_authors": recovery,
        "recovered": recovery is not None,
    }
    return {"method": method, "label": label, "at": at, "round": round, "scale": scale, **found}
