"""The findings in words: did it forget, is the model still good, what did it cost.

Every sentence is arithmetic on the scorecard's aggregates. With |gap| the mean absolute gap to retrain on the
forgotten data, in accuracy or whatever else the task is judged by, and the floor the same between two
retrainings, a method

- *forgot* (``good``) when |gap| ≤ floor: it cannot be told from a retrained model by this measure. Where the
  original cannot be told from one either, before anything is forgotten, nothing is said (``unknown``);
- *forgot in part* (``fair``) when |gap| is below the original's and below natural forgetting's;
- otherwise *did no better than waiting* (``poor``).

Natural forgetting, which is waiting, is the ``baseline`` unless it is within the floor.
"""

from dataclasses import dataclass

from fedunlearn.report.scores import Scores
from fedunlearn.report.words import moment, number

TELLING = 3.0
"""The original's gap should be this many floors wide before any method can be told from another."""

NOTHING_TO_TELL = (
    "nothing can be told: even the original model is as close to retraining as a second retraining is"
)


@dataclass(frozen=True)
class Finding:
    """What one label achieved. ``None`` = not measured."""

    label: str
    at: str | None
    level: str
    """``good``, ``fair``, ``poor``, ``baseline`` or ``unknown``."""
    words: str
    gap: float | None = None
    signed: float | None = None
    """The mean gap, negative when the model is worse on the forgotten data than a retrained one."""
    floor: float | None = None
    original_gap: float | None = None
    test_gap: float | None = None
    test_floor: float | None = None
    hausdorff_gap: float | None = None
    """On the test split, mm; None where masks are not what is learned."""
    hausdorff_floor: float | None = None
    missed: float | None = None
    """Test slices in which nothing was found, percent."""
    retrain_missed: float | None = None
    recovered: str = ""
    client_epochs: float | None = None
    retraining_epochs: float | None = None


def findings(scores: Scores) -> list[Finding]:
    """Return one finding per method, the smallest |gap| first, the unknown last."""
    found = [_finding(scores, label) for label in scores.methods]
    return sorted(found, key=lambda finding: (finding.gap is None, finding.gap or 0.0))


def _finding(scores: Scores, label: str) -> Finding:
    at, lost, failed = scores.judged_at(label), scores.diverged_at(label), scores.failed_at(label)
    if at is None and failed is not None:
        return Finding(label, failed, "poor", "; ".join(scores.failures()[label]))
    if at is None and lost is not None:
        return Finding(label, lost, "poor", "diverged: its weights are no numbers any more")
    if at is None:
        return Finding(
            label, None, "unknown", "its gap to retrain was not measured", recovered=recovery(scores, label)
        )
    forget, test = (scores.quality.of(split) for split in ("forget", "test"))
    little = nothing_to_tell(scores)
    gap = scores.stat(label, at, "abs_gap", forget).mean
    floor = scores.stat(label, at, "floor", forget).mean
    original = original_gap(scores)
    natural = scores.stat("natural", at, "abs_gap", forget).mean if label != "natural" else None
    assert gap is not None  # judged_at chose a moment where it is known
    signed = scores.stat(label, at, "gap", forget).mean
    if little and floor is not None and gap <= floor:
        level, words = "unknown", NOTHING_TO_TELL
    elif label == "natural":
        level, words = _waiting(gap, floor, original)
    else:
        too_far = signed is not None and signed < 0
        level, words = _judge(gap, floor, original, natural, too_far=too_far, word=scores.quality.word)
    if lost is not None:
        words += f"; diverged in {scores.diverged(label, lost)} of {scores.count(label, lost)}"
    if failed is not None:
        words += f"; failed in {scores.failed(label, failed)} of {scores.count(label, failed)}"
    spent_at = "recovered" if scores.cost(label, "recovered", "client_epochs") is not None else at
    spent = scores.cost(label, spent_at, "client_epochs")
    retraining = scores.cost("retrain", "request", "client_epochs")
    return Finding(
        label=label,
        at=at,
        level=level,
        words=words,
        gap=gap,
        signed=signed,
        floor=floor,
        original_gap=original,
        test_gap=scores.stat(label, at, "abs_gap", test).mean,
        test_floor=scores.stat(label, at, "floor", test).mean,
        hausdorff_gap=scores.stat(label, at, "abs_gap", "test_hausdorff").mean,
        hausdorff_floor=scores.stat(label, at, "floor", "test_hausdorff").mean,
        missed=scores.stat(label, at, "metrics", "test_missed").mean,
        retrain_missed=scores.stat("retrain", at, "metrics", "test_missed").mean,
        recovered=recovery(scores, label),
        client_epochs=spent,
        retraining_epochs=retraining,
    )


def _judge(
    gap: float,
    floor: float | None,
    original: float | None,
    natural: float | None,
    *,
    too_far: bool,
    word: str,
) -> tuple[str, str]:
    if floor is not None and gap <= floor:
        return "good", f"forgot, by forget {word}: as close to retraining as a second retraining is"
    if original is not None and gap >= original and too_far:
        return "poor", "forgot too much: further from retraining than the original, on the other side"
    if original is not None and gap >= original:
        return "poor", "did not forget: no closer to retraining than the original model"
    if natural is not None and gap >= natural:
        return "poor", "forgot no more than training on without the client does"
    if original is None:
        return "unknown", "how much there was to forget was not measured"
    return "fair", f"closed {number(100 * (1 - gap / original), 0)} % of the gap to retraining"


def _waiting(gap: float, floor: float | None, original: float | None) -> tuple[str, str]:
    """Judge natural forgetting. Nothing is unlearned, so nothing is called forgotten."""
    if floor is not None and gap <= floor:
        return "good", "training on alone came as close to retraining as a second retraining is"
    if original is None or gap >= original:
        return "baseline", "training on alone closed none of the gap to retraining"
    return (
        "baseline",
        f"training on alone closed {number(100 * (1 - gap / original), 0)} % of the gap to retraining",
    )


def original_gap(scores: Scores) -> float | None:
    """Return the original's mean |gap| on the forgotten data: how much there was to forget."""
    return scores.stat("original", "request", "abs_gap", scores.quality.of("forget")).mean


def nothing_to_tell(scores: Scores) -> bool:
    """Whether even the original, asked to forget, is as close to retraining as a second retraining is."""
    gap = original_gap(scores)
    floor = scores.stat("original", "request", "floor", scores.quality.of("forget")).mean
    return gap is not None and floor is not None and gap <= floor


def recovery(scores: Scores, label: str) -> str:
    """Return a recovery in words, e.g. ``3 of 4 recovered, after 4.3 rounds``; empty when unknown."""
    stat, never, asked = scores.recovery(label)
    if stat.mean is None:
        return f"never recovered ({never} of {asked})" if never else ""
    rounds = number(stat.mean)
    return f"{asked - never} of {asked} recovered, after {rounds} round{'' if rounds == '1.0' else 's'}"


def best_finding(scores: Scores) -> Finding | None:
    """Return the method the headline is about: the nearest to retraining, natural forgetting only if alone."""
    known = [finding for finding in findings(scores) if finding.gap is not None]
    return next((finding for finding in known if finding.label != "natural"), known[0] if known else None)


def headline(scores: Scores) -> str:
    """Return the page's one sentence."""
    best = best_finding(scores)
    if best is None:
        return "No gap to a retrained model was measured"
    if best.words == NOTHING_TO_TELL:
        return f"Of {best.label} {NOTHING_TO_TELL}"
    if best.label == "natural":
        return f"{best.words[0].upper()}{best.words[1:]}"
    return f"{best.label} {best.words}"


def evidence(scores: Scores) -> str:
    """Return the sentence under it: the numbers, with the moment they belong to."""
    best = best_finding(scores)
    if best is None or best.at is None:
        return "Without it nothing can be said about forgetting."
    word = scores.quality.word
    parts = [f"On the forgotten data its {word} is {number(best.gap)} points from a retrained model's"]
    parts[0] += f", {moment(best.at)}."
    if best.original_gap is not None:
        parts.append(f"Before: {number(best.original_gap)}.")
    natural = scores.stat("natural", best.at, "abs_gap", scores.quality.of("forget")).mean
    if natural is not None and best.label != "natural":
        parts.append(f"Natural forgetting, in the same round: {number(natural)}.")
    floor = (
        f"Two retrainings differ by {number(best.floor)}."
        if best.floor is not None
        else "No floor was measured."
    )
    return " ".join([*parts, floor])


def caution(scores: Scores) -> str | None:
    """Return a warning when there was too little to forget for the comparison to tell, else None."""
    gap = original_gap(scores)
    floor = scores.stat("original", "request", "floor", scores.quality.of("forget")).mean
    if gap is None or floor is None or gap >= TELLING * floor:
        return None
    return (
        f"Little to tell apart: even the original model is only {number(gap)} points from retraining, less "
        f"than {TELLING:.0f} × the floor of {number(floor)}. More training, or clients whose data others lack, "
        "would show more."
    )
