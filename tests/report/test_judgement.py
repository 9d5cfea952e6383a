"""The verdict as a pure function of numbers: a table of everything that can be so."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.report.judgement import NOTHING_TO_TELL, Evidence, judge

BELOW = "points below a retrained model on the forgotten data"
FORGOT = "forgot, by forget accuracy: it is as close to retraining as another retraining is"


def of(gap, signed=None, **known):
    """Return the evidence of a gap where the original was 20 points away and retrainings differ by 2."""
    known = {"floor": 2.0, "its_floor": 2.0, "before": 20.0, **known}
    return Evidence(gap=gap, signed=gap if signed is None else signed, **known)


CASES = {
    "within the floor": (of(1.9), "good", FORGOT),
    "at the floor": (of(2.0), "good", FORGOT),
    "within it on the other side": (of(1.9, -1.9), "good", FORGOT),
    "within it, as waiting is": (of(1.9, natural=1.0), "good", f"{FORGOT}, and so is continued training"),
    "within it, as waiting is not": (of(1.9, natural=9.0), "good", FORGOT),
    "half way": (of(5.0), "fair", "closed 75 % of the gap to retraining"),
    "half way, better than waiting": (
        of(5.0, natural=8.0),
        "fair",
        "closed 75 % of the gap to retraining",
    ),
    "half way, like waiting": (
        of(5.0, natural=5.0),
        "poor",
        "forgot no more than continued training without the forgotten data does",
    ),
    "half way in the mean, too far in one": (
        of(5.0, 2.0, n=3, above=2, below=1),
        "fair",
        "closed 75 % of the gap to retraining. It forgot too much in 1 of 3 cases",
    ),
    "half way in the mean, too far in one, with little to tell apart": (
        of(2.5, 1.0, before=5.0, n=3, above=2, below=1),
        "fair",
        "closed 50 % of the gap to retraining",
    ),
    "the original itself": (
        of(20.0),
        "poor",
        "did not forget: no closer to retraining than the original model",
    ),
    "further than the original": (
        of(25.0),
        "poor",
        "did not forget: no closer to retraining than the original model",
    ),
    # -- over-forgotten: below the retrained model --
    "a little too much": (
        of(3.0, -3.0, natural=5.0),
        "fair",
        f"forgot too much: 3.0 {BELOW}. The original was 20.0 points away",
    ),
    "too much, and waiting is closer": (
        of(3.0, -3.0, natural=2.5),
        "poor",
        f"forgot too much: 3.0 {BELOW}. Continued training without the forgotten data comes closer",
    ),
    "too much, further than the original": (
        of(40.0, -40.0, natural=5.0),
        "poor",
        f"forgot too much: 40.0 {BELOW}. The original model is at least as close",
    ),
    "too much in two of three": (
        of(6.0, -2.0, n=3, above=1, below=2),
        "fair",
        f"forgot too much in 2 of 3 cases and too little in 1. It is on average 2.0 {BELOW} (6.0 points away, "
        "in either direction). The original was 20.0 points away",
    ),
    "too much in two of three, with little to tell apart": (
        of(2.8, -2.5, floor=1.2, its_floor=2.1, before=3.6, natural=2.3, n=3, above=1, below=2, awaited=3),
        "poor",
        f"forgot too much: on average 2.5 {BELOW} (2.8 points away, in either direction). Continued training "
        "without the forgotten data comes closer. It never recovered",
    ),
    "too much in all of three": (
        of(6.0, -6.0, n=3, below=3),
        "fair",
        f"forgot too much: on average 6.0 {BELOW}. The original was 20.0 points away",
    ),
    "too much in the mean, within the floor in two": (
        of(3.0, -2.4, n=3, below=1),
        "fair",
        f"forgot too much: on average 2.4 {BELOW} (3.0 points away, in either direction). The original was 20.0 "
        "points away",
    ),
    "too much without a floor": (
        of(3.0, -3.0, floor=None, its_floor=None),
        "fair",
        f"forgot too much: 3.0 {BELOW}. The original was 20.0 points away",
    ),
    # -- not recovered --
    "within the floor, not recovered": (
        of(1.0, n=2, recovered=1, awaited=2),
        "fair",
        f"{FORGOT}. It recovered in 1 of 2 cases",
    ),
    "half way, never recovered": (
        of(5.0, n=2, recovered=0, awaited=2),
        "fair",
        "closed 75 % of the gap to retraining. It never recovered",
    ),
    "within the floor, one case, never recovered": (
        of(1.0, recovered=0, awaited=1),
        "fair",
        f"{FORGOT}. It never recovered",
    ),
    "within the floor, recovered": (of(1.0, n=2, recovered=2, awaited=2), "good", FORGOT),
    "within the floor, recovery not awaited": (of(1.0), "good", FORGOT),
    # -- the original passes --
    "the original within the floor": (of(1.0, before=2.0), "unknown", NOTHING_TO_TELL),
    "the original within the floor of its own round": (
        of(1.0, before=5.0, its_floor=6.0),
        "unknown",
        NOTHING_TO_TELL,
    ),
    "a floor that went astray": (of(1.0, before=4.4, floor=15.2), "unknown", NOTHING_TO_TELL),
    "the original within the floor, a method beyond": (
        of(2.1, before=2.0),
        "poor",
        "did not forget: further from retraining than the original model. That was within the floor",
    ),
    "the original within the floor, a method far below": (
        of(9.0, -9.0, before=2.0),
        "poor",
        f"forgot too much: 9.0 {BELOW}. The original was within the floor",
    ),
    "the original is retrain to the bit": (
        of(0.0, before=0.0, floor=0.0, its_floor=0.0),
        "unknown",
        NOTHING_TO_TELL,
    ),
    # -- something is missing --
    "no original": (of(5.0, before=None), "unknown", "the original's gap was not measured"),
    "no original, within the floor": (
        of(1.0, before=None),
        "unknown",
        "the original's gap was not measured",
    ),
    "no floor": (of(5.0, floor=None, its_floor=None), "fair", "closed 75 % of the gap to retraining"),
    "no floor, and no gap": (
        of(0.0, floor=None, its_floor=None),
        "fair",
        "closed 100 % of the gap to retraining",
    ),
    # -- classes: the retrained model knows nothing of them, whatever its seed --
    "a class is gone": (of(0.0, floor=0.0, its_floor=0.0, before=99.0), "good", FORGOT),
    "a class is not": (
        of(0.5, floor=0.0, its_floor=0.0, before=99.0),
        "fair",
        "closed 99 % of the gap to retraining",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_case(case):
    found, level, words = CASES[case]
    assert judge(found, word="accuracy") == (level, words)


@pytest.mark.parametrize(
    ("found", "level", "words"),
    [
        (of(5.0), "baseline", "continued training closed 75 % of the gap to retraining"),
        (of(25.0), "baseline", "continued training closed none of the gap to retraining"),
        (of(1.0), "good", "continued training came as close to retraining as another retraining does"),
        (of(1.0, before=1.5), "unknown", NOTHING_TO_TELL),
        (of(5.0, before=None), "unknown", "the original's gap was not measured"),
        (
            of(5.0, -5.0, below=1),
            "baseline",
            "continued training ended 5.0 points below a retrained model on the forgotten data",
        ),
        (
            of(5.0, -4.0, n=2, below=1),
            "baseline",
            "continued training ended on average 4.0 points below a retrained model on the forgotten data (5.0 "
            "points away, in either direction)",
        ),
    ],
)
def test_waiting(found, level, words):
    assert judge(found, word="accuracy", waiting=True) == (level, words)
    assert "forgot," not in words


def test_dice_is_called_dice():
    assert judge(of(1.0), word="Dice") == ("good", FORGOT.replace("accuracy", "Dice"))


known = st.floats(0, 100)
evidences = st.builds(
    lambda gap, side, **more: Evidence(gap=gap, signed=gap * side, **more),
    gap=known,
    side=st.floats(-1, 1),
    floor=st.none() | known,
    before=st.none() | known,
    its_floor=st.none() | known,
    natural=st.none() | known,
    awaited=st.integers(0, 3),
)


@given(evidences)
def test_no_method_passes_where_the_original_would(found):
    level, _ = judge(found, word="accuracy")
    if level == "good":
        assert found.before is not None and found.floor is not None
        assert found.gap <= found.floor < found.before
        assert found.its_floor is None or found.its_floor < found.before
        assert found.recovered == found.awaited
    if found.before is not None and found.gap >= found.before:
        assert level in ("poor", "unknown")


@given(evidences, st.integers(1, 9), st.integers(0, 9), st.integers(0, 9))
def test_cases_are_told_apart_only_where_there_is_much_to_tell(found, n, above, below):
    found = replace(found, n=n, above=above, below=below)
    _, words = judge(found, word="accuracy")
    if found.little:
        assert "too little" not in words and "too much in" not in words


@given(evidences)
def test_who_is_below_the_retrained_model_beyond_the_floor_is_never_said_to_have_closed_a_gap(found):
    _, words = judge(found, word="accuracy")
    if found.signed < 0 and found.before is not None and not found.within and found.gap > found.floors:
        assert words.startswith("forgot too much")
