"""The findings are arithmetic on rows of the same seeds and forgotten data, whatever rows there are."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.report.judgement import NOTHING_TO_TELL
from fedunlearn.report.scores import Scores
from fedunlearn.report.verdict import cautions, evidence, findings, headline, recovery
from tests.report.cards import one_case, row, scores


def found_of(label, *rows):
    return next(finding for finding in findings(scores(*rows)) if finding.label == label)


def test_headline_and_evidence_name_the_best_method_and_its_numbers():
    card = scores(*one_case(puf=5.0, other=3.0, natural=8.0))
    assert headline(card) == "other closed 85 % of the gap to retraining"
    assert evidence(card) == [
        "On the forgotten data, the accuracy of other is 3.0 points from that of a model retrained without them "
        "(at PUF's recovery, 1 of 1 case).",
        "For comparison, in the same cases: the original 20.0; natural forgetting 8.0; another retraining 2.0 (the "
        "floor).",
    ]
    assert [finding.label for finding in findings(card)] == ["other", "puf", "natural"]


def test_the_mean_size_of_gaps_of_both_signs_is_told_from_their_mean():
    card = scores(
        *two_seeds("original", "request", [30.0, 30.0]),
        *two_seeds("puf", "cap", [-12.0, 4.0], recovered=False),
    )
    assert headline(card) == (
        "puf forgot too much in 1 of 2 cases and too little in 1. It is on average 4.0 points below a retrained "
        "model on the forgotten data (8.0 points away, in either direction). The original was 30.0 points away. It "
        "never recovered"
    )
    assert evidence(card)[0] == (
        "On the forgotten data, the accuracy of puf is 8.0 points away on average, in either direction, from that of "
        "a model retrained without them (at the cap, 2 of 2 cases)."
    )


def test_without_any_gap_nothing_is_claimed():
    card = Scores({})
    assert headline(card) == "No gap to a retrained model was measured"
    assert findings(card) == [] == cautions(card)
    rows = one_case(puf=5.0)
    rows = [{**each, "floor": {}} for each in rows]
    assert "no floor was measured" in evidence(scores(*rows))[1]
    assert found_of("puf", *one_case(puf=None)).words == "its gap to retrain was not measured"


def test_the_spread_of_several_retrainings_stands_beside_their_median():
    rows = [{**each, "floors": {"forget_accuracy": [0.7, 2.0, 18.7]}} for each in one_case(puf=5.0)]
    assert evidence(scores(*rows))[1].endswith("another retraining 2.0 (the floor, median of 0.7 to 18.7).")


# -- one of two targets -------------------------------------------------------------------------------------

HALF_RECOVERED = [
    row("original", "request", 7.2, case=0, floor=0.5),
    row("original", "request", 1.6, case=1, floor=0.5),
    row("puf", "unlearned", -60.0, case=0, recovered=False),
    row("puf", "unlearned", -20.0, case=1, recovered=True, recovery_rounds=2),
    row("puf", "compare", -1.0, case=1, floor=0.5, recovered=True, recovery_rounds=2),
    row("puf", "cap", -2.5, case=0, recovered=False),
    row("puf", "cap", 1.1, case=1, recovered=True, recovery_rounds=2),
    row("natural", "unlearned", 1.0, case=0),
    row("natural", "unlearned", 1.0, case=1),
    row("natural", "compare", 0.7, case=1, floor=0.5),
    row("natural", "cap", 2.4, case=0),
    row("natural", "cap", 0.2, case=1),
]
"""PUF recovers in one of two cases, in which there was little to forget."""


def test_methods_are_judged_where_most_cases_are():
    card = scores(*HALF_RECOVERED)
    assert card.judged == "cap"
    puf, natural = (next(f for f in findings(card) if f.label == label) for label in ("puf", "natural"))
    assert (puf.n, puf.of, puf.gap, puf.evidence.before) == (2, 2, pytest.approx(1.8), pytest.approx(4.4))
    assert (natural.gap, natural.evidence.before) == (pytest.approx(1.3), pytest.approx(4.4))
    assert puf.cases == "2 of 2 cases"


def test_the_other_moment_is_told_with_its_own_cases_and_the_original_of_these():
    assert evidence(scores(*HALF_RECOVERED))[2] == (
        "At PUF's recovery (1 of 2 cases only): puf 1.0; the original 1.6; natural forgetting 0.7."
    )


def test_where_only_the_recovered_case_is_there_the_original_is_of_that_one():
    rows = [each for each in HALF_RECOVERED if each["at"] != "cap"]
    natural = found_of("natural", *rows)
    assert natural.evidence.before == 1.6, "4.4 is of both, of which one was not recovered from"
    assert (natural.n, natural.of) == (1, 2)
    assert "closed 56 % of the gap" in natural.words
    assert any(words.startswith("Only one case") for words in cautions(scores(*rows)))


def test_one_case_alone_is_called_so():
    assert any(words.startswith("Only one case") for words in cautions(scores(*one_case(puf=5.0))))
    assert not any(words.startswith("Only one case") for words in cautions(scores(*HALF_RECOVERED)))


# -- who is compared with whom --------------------------------------------------------------------------------


def two_seeds(label, at, gaps, **more):
    return [row(label, at, gap, seed=seed, **more) for seed, gap in enumerate(gaps, 1)]


def test_a_method_that_ran_on_fewer_seeds_is_compared_on_those_alone():
    rows = [
        *two_seeds("original", "request", [10.0, 30.0]),
        *two_seeds("puf", "cap", [4.0, 20.0]),
        row("other", "cap", 5.0, seed=1),
    ]
    puf, other = (found_of(label, *rows) for label in ("puf", "other"))
    assert (puf.gap, puf.evidence.before, puf.cases) == (4.0, 10.0, "1 of 2 cases")
    assert (other.gap, other.evidence.before, other.cases) == (5.0, 10.0, "1 of 1 case")


def test_what_diverged_or_failed_takes_no_case_away_from_the_others():
    for how in ("diverged", "failed"):
        rows = [
            *two_seeds("original", "request", [10.0, 30.0]),
            *two_seeds("puf", "cap", [4.0, 20.0]),
            row("wild", "cap", 1.0, seed=1),
            row("wild", "cap", None, seed=2, reason="failed: boom", **{how: True}),
        ]
        puf, wild = (found_of(label, *rows) for label in ("puf", "wild"))
        assert (puf.gap, puf.evidence.before, puf.n) == (12.0, 20.0, 2)
        assert (wild.gap, wild.evidence.before, wild.n, wild.level) == (1.0, 10.0, 1, "fair")
        assert wild.words.endswith(f". It {how} in 1 of 2 cases")
        assert headline(scores(*rows)).startswith("puf "), "of more cases"


def test_methods_without_a_common_case_are_not_ranked_as_if_they_had_one():
    rows = [
        *two_seeds("original", "request", [10.0, 30.0]),
        row("puf", "cap", 4.0, seed=1),
        row("other", "cap", 5.0, seed=2),
    ]
    puf, other = (found_of(label, *rows) for label in ("puf", "other"))
    assert (puf.evidence.before, other.evidence.before) == (10.0, 30.0)
    assert puf.own and other.own
    assert "No case has numbers for all methods, so they cannot be compared with each other." in cautions(
        scores(*rows)
    )


def test_natural_forgetting_counts_where_it_has_every_case_alone():
    rows = [
        *two_seeds("original", "request", [10.0, 30.0]),
        *two_seeds("puf", "cap", [4.0, 20.0]),
        row("natural", "cap", 1.0, seed=1),
        row("natural", "cap", None, seed=2, diverged=True),
    ]
    assert found_of("puf", *rows).evidence.natural is None


@pytest.mark.parametrize("nothing", [None, float("nan"), float("inf")])
def test_no_number_is_no_number(nothing):
    rows = [*two_seeds("original", "request", [10.0, nothing]), *two_seeds("puf", "cap", [4.0, 20.0])]
    found = found_of("puf", *rows)
    assert (found.gap, found.evidence.before, found.cases) == (4.0, 10.0, "1 of 2 cases")


def test_a_timelines_end_is_beside_the_original_on_everything_forgotten():
    def end(label, gap):
        return row(label, "final", gap, forget={"clients": [0, 1]})

    rows = [
        row("original", "request", 10.0, case=0),
        row("original", "request", 30.0, case=1),
        end("puf", 4.0),
    ]
    assert found_of("puf", *rows).evidence.before is None
    assert found_of("puf", *rows, end("original", 16.0)).evidence.before == 16.0


labels, cases = st.sampled_from(["a", "b", "natural"]), st.integers(0, 2)
tables = st.dictionaries(st.tuples(labels, cases), st.none() | st.floats(-50, 50), max_size=9)
befores = st.dictionaries(cases, st.none() | st.floats(-50, 50))


@given(tables, befores)
def test_all_that_a_finding_compares_is_of_the_same_cases(table, before):
    rows = [row("original", "request", gap, case=case) for case, gap in before.items()]
    rows += [row(label, "cap", gap, case=case) for (label, case), gap in table.items()]
    known = {key for key, gap in table.items() if gap is not None}
    for finding in findings(scores(*rows)):
        if finding.evidence is None:
            continue
        mine = finding.label
        options = [
            frozenset(some)
            for size in range(1, 4)
            for some in itertools.combinations(sorted(case for label, case in known if label == mine), size)
        ]

        def mean(gaps):
            gaps = list(gaps)
            return None if None in gaps or not gaps else pytest.approx(sum(map(abs, gaps)) / len(gaps))

        assert any(
            finding.n == len(some)
            and finding.gap == mean(table[mine, case] for case in some)
            and finding.evidence.before in (None, mean(before.get(case) for case in some))
            and finding.evidence.natural in (None, mean(table.get(("natural", case)) for case in some))
            for some in options
        )


# -- what must be known beside --------------------------------------------------------------------------------


def test_too_little_to_forget_is_said():
    assert not any(
        "Too little to tell" in words for words in cautions(scores(*one_case(original=6.0, puf=1.0)))
    )
    (warning,) = [w for w in cautions(scores(*one_case(original=5.9, puf=1.0))) if "Too little to tell" in w]
    assert "only 5.9 points" in warning
    assert "3 × the floor of 2.0" in warning


@pytest.mark.parametrize("method", ["puf", "natural"])
def test_where_even_the_original_is_within_the_floor_nothing_is_claimed(method):
    """However near a method comes; but one that ends beyond the floor has done harm."""
    card = scores(*one_case(original=2.0, **{method: 1.9}))
    assert findings(card)[0].level == "unknown"
    assert headline(card) == NOTHING_TO_TELL[0].upper() + NOTHING_TO_TELL[1:]
    assert findings(scores(*one_case(original=2.0, puf=2.1)))[0].level == "poor"
    assert findings(scores(*one_case(original=2.1, puf=1.9)))[0].level == "good"


def test_odd_retrainings_are_named():
    odd = {"retraining": "floor-0-s1-2", "measure": "forget_accuracy", "value": 62.0, "median": 90.5}
    rows = one_case(puf=5.0)
    rows[1]["outliers"] = [odd]
    (warning,) = [words for words in cautions(scores(*rows)) if "Outliers" in words]
    assert "floor-0-s1-2 in round 10 (forget accuracy 62.0 %, the others 90.5)." in warning
    assert "Gaps are measured to" not in warning
    rows[1]["outliers"] = [{**odd, "retraining": "retrain-0-s1"}] * 2
    (warning,) = [words for words in cautions(scores(*rows)) if "Outliers" in words]
    assert warning.count("62.0") == 1
    assert warning.endswith("Gaps are measured to retrain-…: where that is an outlier, they are too.")


def test_waiting_is_never_called_forgetting():
    for gap in (0.5, 5.0, 30.0):
        assert "forgot" not in headline(scores(*one_case(natural=gap))).lower()


def test_methods_are_judged_at_the_fairest_moment():
    for at in ("compare", "cap", "final", "recovered", "unlearned"):
        assert findings(scores(*one_case(at=at, puf=1.0)))[0].at == at
    rows = [row("puf", at, 1.0) for at in ("unlearned", "cap", "compare", "recovered")]
    assert findings(scores(*rows))[0].at == "compare"


@pytest.mark.parametrize(
    ("rounds", "censored", "words"),
    [
        ([4, 5, 4, 4], 0, "4 of 4 recovered, after 4.2 rounds"),
        ([1, 1], 1, "2 of 3 recovered, after 1.0 round"),
        ([], 3, "never recovered (3 of 3)"),
        ([], 0, ""),
    ],
)
def test_recovery_counts_what_never_recovered(rounds, censored, words):
    rows = [
        row("puf", "unlearned", 1.0, seed=n, recovered=True, recovery_rounds=r) for n, r in enumerate(rounds)
    ]
    rows += [row("puf", "unlearned", 1.0, seed=10 + n, recovered=False) for n in range(censored)]
    assert recovery(scores(*rows, row("puf", "unlearned", 1.0, seed=20)), "puf") == words
