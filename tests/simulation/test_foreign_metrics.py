"""A metric of another package: named in the experiment, in every row, aggregate and table, and in the cache's key."""

import sys

import numpy as np
import pytest

from fedunlearn import config, plugins
from fedunlearn.errors import ConfigError
from fedunlearn.evaluation import metric as registry
from fedunlearn.report.page import write_report
from fedunlearn.report.tables import markdown, scorecard_table
from fedunlearn.simulation import forecast, scoring, source_hash
from fedunlearn.simulation.runner import read_scorecard, simulate
from tests.e2e.tiny import tiny
from tests.report.parsed_page import parse

SOURCE = '''
import numpy as np
from fedunlearn.evaluation.evidence import Evidence
from fedunlearn.evaluation.metric import metric

LIMIT = 0.5

@metric("forget_doubt", title="doubt on forgotten data", unit="bits", better="retrain", tasks=("classification",))
def forget_doubt(evidence: Evidence) -> float:
    """Share of the data to forget whose true class has a probability below one half."""
    return float(np.mean(evidence.forgotten.confidences < LIMIT))

@metric("halves", title="halves", unit="0 to 9", better="lower", needs=("outputs", "retrained"), retrained_value=0.5)
def halves(evidence):
    """Nothing that could be measured."""
    return 1 / 0
'''
NAMED = 'measures.metrics=["doubts.doubt:forget_doubt", "doubts.doubt:halves"]'


def forget_everything():
    for name in [name for name in sys.modules if name.partition(".")[0] == "doubts"]:
        del sys.modules[name]
    plugins.LOADED.clear()
    source_hash._hash.cache_clear()


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "site" / "doubts"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "doubt.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setattr(plugins, "LOADED", {})
    monkeypatch.setattr(registry, "_defined", dict(registry._defined))
    yield folder
    forget_everything()


@pytest.mark.slow
def test_it_is_in_rows_aggregates_and_report_and_its_source_in_the_key(
    package, tmp_path, monkeypatch, capsys
):
    taken = []
    run_model = scoring.SeedScoring._run_model
    monkeypatch.setattr(
        scoring.SeedScoring, "_run_model", lambda self, *which: taken.append(which) or run_model(self, *which)
    )
    experiment = tiny("cache=true", NAMED)
    run = simulate(experiment, out=tmp_path / "runs")
    card = read_scorecard(run)
    assert [entry["name"] for entry in card["declared"]] == ["forget_doubt", "halves"]
    plain = read_scorecard(simulate(tiny("cache=true"), out=tmp_path / "plain"))
    assert "declared" not in plain
    for row, without in zip(card["rows"], plain["rows"], strict=True):
        assert 0 <= row["metrics"]["forget_doubt"] <= 1
        assert row["gap"]["forget_doubt"] is not None and row["floor"]["forget_doubt"] is not None
        assert row["metrics"]["halves"] is None
        assert "halves: doubts.doubt failed: ZeroDivisionError: division by zero" in row["reason"]
        others = {k: v for k, v in row["metrics"].items() if k not in ("forget_doubt", "halves")}
        assert others == without["metrics"], "what others measure changes no value of ours"
    retrain = {row["round"]: row["metrics"] for row in card["rows"] if row["label"] == "retrain"}
    natural = next(row for row in card["rows"] if (row["label"], row["at"]) == ("natural", "cap"))
    own, reference = natural["metrics"]["forget_doubt"], retrain[natural["round"]]["forget_doubt"]
    assert natural["gap"]["forget_doubt"] == pytest.approx(own - reference, abs=1e-6)
    assert all("forget_doubt" in entry["metrics"] for entry in card["aggregates"])

    # Whoever reads the scorecard need not have the package.
    forget_everything()
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(package.parent)])
    write_report(run)
    page = parse((run / "report.html").read_text())
    first = page.all("section", id="scorecard")[0].all("table")[0]
    headings = [cell for cell in first.all("th") if "doubt on forgotten data" in cell.text]
    assert headings and headings[0].attributes["title"] == (
        "Share of the data to forget whose true class has a probability below one half (bits); "
        "better: nearer to retrain's"
    )
    assert "| doubt on forgotten data |" in markdown(card)
    scorecard_table(card)

    # Once more nothing is measured; with another source of the package all of it is.
    monkeypatch.syspath_prepend(package.parent)
    before = len(taken)
    simulate(experiment, out=tmp_path / "runs", fresh=True)
    assert len(taken) == before
    (package / "doubt.py").write_text(SOURCE.replace("LIMIT = 0.5", "LIMIT = 0.875"))
    forget_everything()
    changed = read_scorecard(simulate(experiment, out=tmp_path / "runs", fresh=True))
    assert len(taken) > before
    rows = zip(card["rows"], changed["rows"], strict=True)
    assert all(new["metrics"]["forget_doubt"] >= old["metrics"]["forget_doubt"] for old, new in rows)
    assert changed["rows"] != card["rows"]
    assert np.all([row["cost"]["cached"] for row in changed["rows"]]), "no branch was trained again"


@pytest.mark.parametrize("begin", [forecast.forecast, lambda experiment: simulate(experiment, out=None)])
def test_one_that_cannot_be_had_is_refused_before_anything_runs(package, begin):
    experiment = tiny('measures.metrics=["doubts.doubt:missing"]')
    with pytest.raises(ConfigError, match=r'^measures\.metrics\[1\] = "doubts\.doubt:missing": is broken: '):
        begin(experiment)


def test_the_experiment_that_a_run_keeps_names_it(package):
    experiment = tiny(NAMED)
    assert config.loads(config.to_toml(experiment), "kept").measures.metrics == experiment.measures.metrics
    assert config.digest(experiment) != config.digest(tiny())
