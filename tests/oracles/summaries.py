"""Average Gap and ToW from two models' metrics by name, as they are defined; None where a part is not known."""

import math

QUALITY = {"classification": "accuracy", "segmentation": "dice"}


def summaries(metrics, retrain, *, task="classification"):
    name = QUALITY[task]
    test = f"retain_test_{name}" if f"retain_test_{name}" in metrics else f"test_{name}"
    three = [f"forget_{name}", f"retain_{name}", test]
    gaps = {
        each: None if None in (metrics.get(each), retrain.get(each)) else metrics[each] - retrain[each]
        for each in [*three, "mia_svc"]
    }
    known = None not in gaps.values()
    average = sum(abs(gap) for gap in gaps.values()) / 4 if known else None
    of_three = [gaps[each] for each in three]
    tug = None if None in of_three else math.prod(1 - abs(gap) / 100 for gap in of_three)
    return {"average_gap": average, "tug_of_war": tug}
