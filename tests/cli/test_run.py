"""``fedunlearn run``: what its options come to."""

import sys

import pytest

from fedunlearn.cli.main import main
from fedunlearn.simulation import runner
from tests.e2e.tiny import TINY


@pytest.mark.parametrize(
    ("words", "resume", "fresh"),
    [([], False, False), (["--resume"], True, False), (["--fresh"], False, True)],
)
def test_a_run_is_started_over_or_gone_on_with_only_where_that_is_asked_for(
    words, resume, fresh, tmp_path, monkeypatch
):
    class ToldError(Exception):
        pass

    asked = {}

    def simulate(experiment, **options):
        asked.update(options)
        raise ToldError

    monkeypatch.setattr(runner, "simulate", simulate)
    (tmp_path / "tiny.toml").write_text(TINY)
    monkeypatch.setattr(sys, "argv", ["fedunlearn", "run", str(tmp_path / "tiny.toml"), *words])
    with pytest.raises((ToldError, SystemExit)):
        main()
    assert (asked["resume"], asked["fresh"]) == (resume, fresh)
