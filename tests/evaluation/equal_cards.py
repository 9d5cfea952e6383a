"""What the scorecards of two equal runs agree on."""

from collections.abc import Mapping
from typing import Any


def without_seconds(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scorecard less ``cost.seconds`` and ``cost.cached``."""
    kept = [
        {**row, "cost": {k: v for k, v in row["cost"].items() if k not in ("seconds", "cached")}}
        for row in card["rows"]
    ]
    return {**card, "rows": kept}
