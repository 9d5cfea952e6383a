"""Little scorecards for the report's tests: rows of one measure or a few, a line each."""

from typing import Any

from fedunlearn.report.scores import Scores

Json = dict[str, Any]


def row(label: str, at: str, gap: float | None, *, case: int = 0, seed: int = 1, **more: Any) -> Json:
    """Return a row of a model that is ``gap`` points from a retrained one's 70 % on forgotten data.

    Parameters
    ----------
    case
        Which client is forgotten.
    more
        ``floor`` (2), ``metric`` ("forget_accuracy"), and anything else that a row has.
    """
    metric, floor = more.pop("metric", "forget_accuracy"), more.pop("floor", 2.0)
    return {
        "label": label,
        "method": label,
        "at": at,
        "seed": seed,
        "request": None if at == "final" else f"target-{case}",
        "target": case,
        "round": 10,
        "forget": {"clients": [case], "samples": None, "classes": None},
        "metrics": {metric: None if gap is None else 70.0 + gap},
        "gap": {metric: gap},
        "floor": {metric: floor},
        "recovered": None,
        "recovery_rounds": None,
        **more,
    }


def scores(*rows: Json, **known: Any) -> Scores:
    """Return what the report reads of these rows."""
    return Scores({"experiment": "e", "rows": list(rows), **known})


def one_case(at: str = "compare", original: float | None = 20.0, **gaps: float | None) -> list[Json]:
    """Return the rows of a single case: the original and a row for every label."""
    first = [row("original", "request", original)] if original is not None else []
    return first + [row(label, at, gap) for label, gap in gaps.items()]
