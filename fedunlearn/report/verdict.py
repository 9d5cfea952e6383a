"""The findings in words: did it forget, is the model still good, what did it cost.

Every sentence is arithmetic on the scorecard's rows, over the same seeds and forgotten data (cases) for all that it
compares; the rules are in ``report.judgement``.
"""

from dataclasses import dataclass

from fedunlearn.evaluation.metrics.masks import test_hausdorff, test_missed
from fedunlearn.plurals import counted
from fedunlearn.report.judgement import NOTHING_TO_TELL, TELLING, Evidence, Level, judge
from fedunlearn.report.scores import Json, Scores
from fedunlearn.report.selection import Case, case_of, cases_with, value_of
from fedunlearn.report.stat import stat_of
from fedunlearn.report.words import moment, number

NAMED_OUTLIERS = 6
"""So many odd retrainings are named."""


@dataclass(frozen=True)
class Finding:
    """What one label achieved. ``None`` = not measured."""

    label: str
    at: str | None
    level: Level
    words: str
    evidence: Evidence | None = None
    n: int = 0
    of: int = 0
    """Over so many of so many cases."""
    own: bool = False
    """Whether these cases are not the other methods'."""
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
    """From the request until the moment of the gap."""
    retraining_epochs: float | None = None
    """From the first round until the same moment; None where nothing is retrained until then."""

    @property
    def gap(self) -> float | None:
        """|gap| to retrain on the forgotten data."""
        return self.evidence.gap if self.evidence else None

    @property
    def cases(self) -> str:
        """Over how many cases, in words."""
        return f"{self.n} of {counted(self.of, 'case')}"


def findings(scores: Scores) -> list[Finding]:
    """Return one finding per method: what can be compared before what cannot, the smallest |gap| first."""
    found = [_finding(scores, label) for label in scores.methods]

    def place(finding: Finding) -> tuple[bool, bool, int, float]:
        elsewhere = finding.own or finding.at != scores.judged
        return finding.gap is None, elsewhere, -finding.n, finding.gap or 0.0

    return sorted(found, key=place)


def _finding(scores: Scores, label: str) -> Finding:
    at, lost, failed = scores.judged_at(label), scores.diverged_at(label), scores.failed_at(label)
    if at is None and failed is not None:
        return Finding(label, failed, "poor", "; ".join(scores.failures()[label]))
    if at is None and lost is not None:
        return Finding(label, lost, "poor", "diverged: its weights became NaN or infinite")
    evidence = None if at is None else evidence_of(scores, label, at)
    if at is None or evidence is None:
        return Finding(
            label, at, "unknown", "its gap to retrain was not measured", recovered=recovery(scores, label)
        )
    test = scores.quality.of("test")
    level, words = judge(evidence, word=scores.quality.word, waiting=label == "natural")
    if lost is not None:
        words += f". It diverged in {scores.diverged(label, lost)} of {scores.count(label, lost)} cases"
    if failed is not None:
        words += f". It failed in {scores.failed(label, failed)} of {scores.count(label, failed)} cases"
    if level == "good" and (lost is not None or failed is not None):
        level = "fair"
    return Finding(
        label=label,
        at=at,
        level=level,
        words=words,
        evidence=evidence,
        n=evidence.n,
        of=scores.asked(label, at),
        own=not scores.are_common(at),
        test_gap=scores.stat(label, at, "abs_gap", test).mean,
        test_floor=scores.stat(label, at, "floor", test).mean,
        hausdorff_gap=scores.stat(label, at, "abs_gap", test_hausdorff.name).mean,
        hausdorff_floor=scores.stat(label, at, "floor", test_hausdorff.name).mean,
        missed=scores.stat(label, at, "metrics", test_missed.name).mean,
        retrain_missed=scores.stat("retrain", at, "metrics", test_missed.name).mean,
        recovered=recovery(scores, label),
        client_epochs=scores.cost(label, at, "client_epochs"),
        retraining_epochs=scores.cost_beside(label, at, "retrain", at, "client_epochs"),
    )


def evidence_of(scores: Scores, label: str, at: str) -> Evidence | None:
    """Return a method's numbers at a moment with the original's and natural forgetting's of the same cases."""
    metric = scores.quality.of("forget")
    rows = [row for row in scores.selected(label, at, metric) if value_of(row, "gap", metric) is not None]
    if not rows:
        return None
    cases = frozenset(map(case_of, rows))
    gap, signed, floor = (stat_of(rows, kind, metric).mean for kind in ("abs_gap", "gap", "floor"))
    assert gap is not None and signed is not None
    sides = [_side(row, metric) for row in rows]
    awaited = [row["recovered"] for row in rows if row.get("recovered") is not None]
    return Evidence(
        gap=gap,
        signed=signed,
        floor=floor,
        before=_of_all(scores, "original", at, cases, "abs_gap"),
        its_floor=_of_all(scores, "original", at, cases, "floor"),
        natural=None if label == "natural" else _of_all(scores, "natural", at, cases, "abs_gap"),
        n=len(rows),
        above=sides.count(1),
        below=sides.count(-1),
        recovered=sum(awaited),
        awaited=len(awaited),
    )


def _of_all(scores: Scores, label: str, at: str, cases: frozenset[Case], kind: str) -> float | None:
    """Return another label's mean over cases, None where it lacks one of them: nothing is compared in part."""
    metric = scores.quality.of("forget")
    rows = scores.over(label, at, cases)
    return stat_of(rows, kind, metric).mean if cases_with(rows, metric) == cases else None


def _side(row: Json, metric: str) -> int:
    """Return 1 for a gap above the floor of its row, −1 for one below, else 0."""
    gap, floor = value_of(row, "gap", metric) or 0.0, value_of(row, "floor", metric) or 0.0
    return (gap > floor) - (gap < -floor)


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
    """Return what stands first on the page, without the last full stop."""
    best = best_finding(scores)
    if best is None:
        return "No gap to a retrained model was measured"
    if best.words.startswith(NOTHING_TO_TELL):
        return _begin(NOTHING_TO_TELL)
    if best.label == "natural":
        return _begin(best.words)
    return f"{best.label} {best.words}"


def evidence(scores: Scores) -> list[str]:
    """Return the sentences under it: the numbers, with the moment and the cases they belong to."""
    best = best_finding(scores)
    if best is None or best.at is None or best.evidence is None:
        return ["Without one, nothing can be said about forgetting."]
    found, word = best.evidence, scores.quality.word
    beside = [f"the original {number(found.before)}"] * (found.before is not None)
    beside += [f"natural forgetting {number(found.natural)}"] * (found.natural is not None)
    away = "points away on average, in either direction," if found.n > 1 else "points"
    lines = [
        f"On the forgotten data, the {word} of {best.label} is {number(found.gap)} {away} from that of a model "
        f"retrained without them ({moment(best.at)}, {best.cases}).",
        f"For comparison, in the same cases: {'; '.join([*beside, _floor_words(scores, best)])}.",
    ]
    return lines + _elsewhere(scores, best)


def _floor_words(scores: Scores, best: Finding) -> str:
    assert best.evidence is not None and best.at is not None
    if best.evidence.floor is None:
        return "no floor was measured"
    wide = scores.floor_spread(best.label, best.at, scores.quality.of("forget"))
    words = f", median of {number(wide[0])} to {number(wide[1])}" if wide else ""
    return f"another retraining {number(best.evidence.floor)} (the floor{words})"


def _elsewhere(scores: Scores, best: Finding) -> list[str]:
    """Return the same of the other moment at which all methods are of one round, if its cases are others."""
    found = []
    for at in ("compare", "cap"):
        there = evidence_of(scores, best.label, at) if at != best.at else None
        if there is None or best.evidence is None or there.n == best.evidence.n or not scores.are_common(at):
            continue
        beside = [f"{best.label} {number(there.gap)}"]
        beside += [f"the original {number(there.before)}"] * (there.before is not None)
        beside += [f"natural forgetting {number(there.natural)}"] * (there.natural is not None)
        cases = f"{there.n} of {counted(best.of, 'case')}"
        found.append(f"{_begin(moment(at))} ({cases} only): {'; '.join(beside)}.")
    return found


def _begin(words: str) -> str:
    return words[0].upper() + words[1:]


def cautions(scores: Scores) -> list[str]:
    """Return what must be known of the comparison: too little to forget, one case, cases apart, odd retrainings."""
    best = best_finding(scores)
    found = [little] if (little := _little(best)) else []
    if best is not None and best.gap is not None and best.n == 1:
        found.append("Only one case: the variation between cases is unknown.")
    if best is not None and best.own:
        found.append("No case has numbers for all methods, so they cannot be compared with each other.")
    return found + outliers(scores)


def _little(best: Finding | None) -> str | None:
    """Return a warning when there was too little to forget for the comparison to tell, else None."""
    if best is None or best.evidence is None or not best.evidence.little:
        return None
    before, floor = best.evidence.before, best.evidence.floors
    return (
        f"Too little to tell apart: even the original model is only {number(before)} points from retraining, less "
        f"than {TELLING:.0f} × the floor of {number(floor)}. More training, or clients with data that others lack, "
        "would show more."
    )


def outliers(scores: Scores) -> list[str]:
    """Return a warning that names the retrainings that are far from all others of their kind, or nothing."""
    found: dict[tuple[str, int], list[str]] = {}
    for row in scores.rows:
        for odd in row.get("outliers") or ():
            metric = scores.metric(odd["measure"])
            words = f"{metric.title} {number(odd['value'])} {metric.unit}"
            words += f", the others {number(odd['median'])}"
            told = found.setdefault((odd["retraining"], row["round"]), [])
            told += [words] * (words not in told)
    if not found:
        return []
    each = [f"{name} in round {round} ({'; '.join(words)})" for (name, round), words in found.items()]
    left = len(each) - NAMED_OUTLIERS
    listed = ", ".join(each[:NAMED_OUTLIERS] + [f"{left} more in scorecard.json"] * (left > 0))
    retrained = " Gaps are measured to retrain-…: where that is an outlier, they are too." * any(
        name.startswith("retrain-") for name, _ in found
    )
    return [f"Outliers among the retrainings, which a median ignores: {listed}.{retrained}"]
