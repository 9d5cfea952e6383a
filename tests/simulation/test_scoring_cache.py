"""What a scorecard measured once is kept, by everything that it depends on."""

from fedunlearn.runs.directory import RunDirectory
from fedunlearn.simulation import scoring
from fedunlearn.simulation.branches import branches
from fedunlearn.simulation.cache import Cache
from fedunlearn.simulation.runner import read_scorecard, simulate
from fedunlearn.simulation.scoring import SeedScoring
from tests.e2e.tiny import TINY, tiny
from tests.simulation.scripted import TIMELINE

PUF, NATURAL = "puf-special-2", "natural"


def test_measures_are_kept_by_all_that_they_depend_on(timeline_run, tmp_path):
    """Model, retrained model, round, whose request, and who is forgotten by then: each changes the values."""
    plan = {b.name: b for b in branches(TIMELINE, 1)}
    puf, natural = plan[f"{PUF}-timeline-s1"], plan[f"{NATURAL}-timeline-s1"]
    retrain, floor = plan["retrain-2-s1"], plan["floor-2-s1"]
    questions = [
        (puf, retrain, 6, (5,), (0, 1, 2, 4, 5)),
        (natural, retrain, 6, (5,), (0, 1, 2, 4, 5)),
        (puf, floor, 6, (5,), (0, 1, 2, 4, 5)),
        (puf, retrain, 7, (5,), (0, 1, 2, 4, 5)),
        (puf, retrain, 6, (1,), (0, 1, 2, 4, 5)),
        (puf, retrain, 6, (5,), (0, 1, 2, 3, 4, 5)),
    ]
    run = RunDirectory(timeline_run)
    anew = SeedScoring(TIMELINE, run, 1, cache=None)
    expected = [anew._measured(*question) for question in questions]
    for _ in range(2):
        kept = SeedScoring(TIMELINE, run, 1, Cache(tmp_path))
        assert [kept._measured(*question) for question in questions] == expected
    run.close()
    assert len({str(values) for values, _ in expected}) == len(questions)


def test_what_was_measured_once_is_not_measured_again_and_cached_seconds_are_flagged(tmp_path, monkeypatch):
    measured = []
    measure = scoring.measure

    def counted(evidence, metrics):
        measured.append(evidence.mia_samples)
        return measure(evidence, metrics)

    monkeypatch.setattr(scoring, "measure", counted)
    first = read_scorecard(simulate(tiny("cache=true"), out=tmp_path))["rows"]
    assert not any(row["cost"]["cached"] for row in first)
    models = len(measured)
    assert models > 5
    more = tiny("cache=true", text=TINY + '[[method]]\nname = "puf"\nscale = 1.0\n')
    second = read_scorecard(simulate(more, out=tmp_path))["rows"]
    assert {row["label"]: row["cost"]["cached"] for row in second} == {
        "original": True,
        "retrain": True,
        "puf-special-2": True,
        "natural": True,
        "puf-special-1": False,
    }
    assert [row["metrics"] for row in second if row["cost"]["cached"]] == [row["metrics"] for row in first]
    new = [row for row in second if not row["cost"]["cached"]]
    oracle = {row["round"] for row in first} - {row["round"] for row in new}
    assert len(measured) - models <= 3 * len(new) + len(oracle), "the new method and its references alone"
    before = len(measured)
    simulate(more, out=tmp_path)
    assert len(measured) == before
    simulate(tiny("cache=true", "measures.mia-samples=10"), out=tmp_path)
    assert measured[before:] == [10] * models, "another measure is taken anew"
