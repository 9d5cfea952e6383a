"""The scorecard: what each method left behind, beside retraining and the noise of retraining.

Pure data in, pure data out; nothing here needs torch. The file format is ``"schema": 2`` of
``scorecard.json``: percentages 0 to 100, null where something was not measured, with a reason.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from fedunlearn.evaluation.aggregates import aggregate
from fedunlearn.evaluation.declaration import Declaration
from fedunlearn.evaluation.rows import Row

SCHEMA = 2
DIGITS = 6


def scorecard(
    experiment: str,
    run: str,
    rows: Sequence[Row],
    *,
    task: str = "classification",
    declared: Iterable[Declaration] = (),
) -> dict[str, Any]:
    """Return the whole scorecard: every row, and the aggregates over seeds and targets.

    The key ``"task"`` is there where it is not classification, ``"declared"`` where metrics of other packages are:
    a reader need not have these packages.
    """
    foreign = [metric.as_dict() for metric in declared]
    return {
        **({} if task == "classification" else {"task": task}),
        **({"declared": foreign} if foreign else {}),
        "schema": SCHEMA,
        "experiment": experiment,
        "run": run,
        "rows": [row.as_dict() for row in rows],
        "aggregates": aggregate(rows),
    }


def dumps(card: Mapping[str, Any]) -> str:
    """Return the canonical JSON text: sorted keys, numbers to 6 decimals, one trailing newline.

    Equal scorecards give equal bytes, and ``json.loads`` followed by ``dumps`` changes nothing.

    Raises
    ------
    ValueError
        If a number is NaN or infinite; what could not be measured is None.
    """
    return json.dumps(_canonical(card, "scorecard"), indent=2, sort_keys=True, allow_nan=False) + "\n"


def _canonical(value: Any, place: str) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): _canonical(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_canonical(item, f"{place}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        if not math.isfinite(value):
            raise ValueError(f"{place} = {value}: must be finite, or None with a reason")
        return round(float(value), DIGITS) + 0.0  # so that -0.0 is written as 0.0
    raise TypeError(f"{place} = {value!r}: must be plain data")
