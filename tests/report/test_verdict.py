"""The findings in words are arithmetic on the aggregates: each rule, and the numbers in the sentences."""

import pytest

from fedunlearn.report.scores import Scores
from fedunlearn.report.verdict import NOTHING_TO_TELL, caution, evidence, findings, headline, recovery

TOO_MUCH = "forgot too much: further from retraining than the original, on the other side"


def card(at="compare", floor=2.0, original=20.0, sign=1, **gaps) -> Scores:
    """Return a scorecard of one metric, one aggregate per label."""

    def line(label, at, gap, **more):
        known = {"mean": gap, "std": None, "low": None, "high": None, "n": 1}
        return {
            "label": label, "at": at, "n": 1, "censored": 0, "recovery_rounds": {},
            "abs_gap": {"forget_accuracy": known},
            "gap": {"forget_accuracy": {**known, "mean": None if gap is None else sign * gap}},
            "floor": {"forget_accuracy": {"mean": floor}}, **more,
        }  # fmt: skip

    lines = [line("original", "request", original)] if original is not None else []
    lines += [line(label, at, gap) for label, gap in gaps.items()]
    return Scores({"experiment": "e", "rows": [], "aggregates": lines})


@pytest.mark.parametrize(
    ("scores", "level", "words"),
    [
        (
            card(puf=1.9),
            "good",
            "forgot, by forget accuracy: as close to retraining as a second retraining is",
        ),
        (
            card(puf=2.0),
            "good",
            "forgot, by forget accuracy: as close to retraining as a second retraining is",
        ),
        (card(puf=5.0), "fair", "closed 75 % of the gap to retraining"),
        (card(puf=5.0, natural=8.0), "fair", "closed 75 % of the gap to retraining"),
        (card(puf=5.0, natural=5.0), "poor", "forgot no more than training on without the client does"),
        (card(puf=20.0), "poor", "did not forget: no closer to retraining than the original model"),
        (card(puf=20.0, sign=-1), "poor", TOO_MUCH),
        (card(puf=5.0, original=None), "unknown", "how much there was to forget was not measured"),
        (card(puf=5.0, floor=None), "fair", "closed 75 % of the gap to retraining"),
        (card(puf=None), "unknown", "its gap to retrain was not measured"),
        (card(natural=5.0), "baseline", "training on alone closed 75 % of the gap to retraining"),
        (card(natural=25.0), "baseline", "training on alone closed none of the gap to retraining"),
        (
            card(natural=1.0),
            "good",
            "training on alone came as close to retraining as a second retraining is",
        ),
    ],
)
def test_each_rule(scores, level, words):
    found = (
        findings(scores)[0]
        if "puf" not in scores.methods
        else next(f for f in findings(scores) if f.label == "puf")
    )
    assert (found.level, found.words) == (level, words)


def test_waiting_is_never_called_forgetting():
    for gap in (0.5, 5.0, 30.0):
        assert "forgot" not in headline(card(natural=gap)).lower()


def test_headline_and_evidence_name_the_best_method_and_its_numbers():
    scores = card(puf=5.0, other=3.0, natural=8.0)
    assert headline(scores) == "other closed 85 % of the gap to retraining"
    assert evidence(scores) == (
        "On the forgotten data its accuracy is 3.0 points from a retrained model's, at PUF's recovery. "
        "Before: 20.0. Natural forgetting, in the same round: 8.0. Two retrainings differ by 2.0."
    )
    assert [finding.label for finding in findings(scores)] == ["other", "puf", "natural"]


def test_without_any_gap_nothing_is_claimed():
    scores = Scores({})
    assert headline(scores) == "No gap to a retrained model was measured"
    assert findings(scores) == []
    assert "No floor was measured." in evidence(card(puf=5.0, floor=None))


def test_too_little_to_forget_is_said():
    assert caution(card(original=6.0, floor=2.0, puf=1.0)) is None
    warning = caution(card(original=5.9, floor=2.0, puf=1.0))
    assert warning is not None
    assert "only 5.9 points" in warning
    assert "3 × the floor of 2.0" in warning


@pytest.mark.parametrize("method", ["puf", "natural"])
def test_where_even_the_original_is_within_the_floor_nothing_is_claimed(method):
    """However near a method comes; but one that ends beyond the floor has done harm."""
    scores = card(original=2.0, floor=2.0, **{method: 1.9})
    assert findings(scores)[0].level == "unknown"
    assert headline(scores) == f"Of {method} {NOTHING_TO_TELL}"
    assert findings(card(original=2.0, floor=2.0, puf=2.1))[0].level == "poor"
    assert findings(card(original=2.1, floor=2.0, puf=1.9))[0].level == "good"


def test_methods_are_judged_at_the_fairest_moment():
    for at in ("compare", "cap", "final", "recovered", "unlearned"):
        assert findings(card(at=at, puf=1.0))[0].at == at
    both = {"abs_gap": {"forget_accuracy": {"mean": 1.0}}}
    lines = [{"label": "puf", "at": at, **both} for at in ("unlearned", "cap", "compare", "recovered")]
    assert findings(Scores({"aggregates": lines}))[0].at == "compare"


@pytest.mark.parametrize(
    ("mean", "n", "censored", "words"),
    [
        (4.25, 4, 0, "4 of 4 recovered, after 4.2 rounds"),
        (1.0, 2, 1, "2 of 3 recovered, after 1.0 round"),
        (None, 0, 3, "never recovered (3 of 3)"),
        (None, 0, 0, ""),
    ],
)
def test_recovery_counts_what_never_recovered(mean, n, censored, words):
    line = {
        "label": "puf",
        "at": "unlearned",
        "n": 9,
        "censored": censored,
        "recovery_rounds": {"mean": mean, "n": n},
    }
    assert recovery(Scores({"aggregates": [line]}), "puf") == words
