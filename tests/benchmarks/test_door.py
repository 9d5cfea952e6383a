"""The door's benchmark: it measures what it says it measures, and a ledger that lost something fails it."""

import json

import pytest

from benchmarks import door, door_silence
from benchmarks.door import Figures


def test_figures_are_those_of_the_latencies() -> None:
    figures = Figures.of(2, 0.5, [number / 1000 for number in range(101)])
    assert (figures.posters, figures.requests, figures.per_second) == (2, 101, 202.0)
    assert (figures.p50, figures.p95, figures.p99) == (50.0, 95.0, 99.0)


@pytest.mark.slow
def test_a_small_run(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(door, "ALONE", 5)
    door.main(
        ["--posters", "4", "--requests", "20", "--folder", str(tmp_path), "--json", str(tmp_path / "f.json")]
    )
    found = json.loads((tmp_path / "f.json").read_text())["figures"]
    assert [(one["posters"], one["requests"]) for one in found] == [(1, 5), (4, 20)]
    assert all(0 < one["p50"] <= one["p95"] <= one["p99"] and one["per_second"] > 0 for one in found)
    assert "p95 ms" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["f.json"]


@pytest.mark.slow
def test_a_ledger_that_lacks_a_request_is_noticed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(door, "ALONE", 3)
    whole = door.together
    monkeypatch.setattr(
        door,
        "together",
        lambda address, tokens, clients: whole(address, tokens, list(clients)[1:] or clients),
    )
    with pytest.raises(SystemExit, match="what was acknowledged"):
        door.measure(tmp_path, posters=2, requests=3)


@pytest.mark.slow
def test_silent_connections_beside_a_prober(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(door_silence, "HOLD_SECONDS", 0.1)
    arguments = ["--kind", "silent", "--kind", "head", "--connections", "20"]
    door_silence.main([*arguments, "--json", str(tmp_path / "f.json")])
    found = json.loads((tmp_path / "f.json").read_text())["figures"]
    assert [(one["kind"], one["tls"], one["connections"], one["failed"]) for one in found] == [
        ("silent", True, 20, 0),
        ("head", True, 20, 0),
    ]
    assert all(one["probes"] >= 2 and 0 < one["p95"] <= one["worst"] < 1 for one in found)
    monkeypatch.setattr(door_silence, "probe", lambda *_: float("inf"))
    with pytest.raises(SystemExit, match="/health failed, or took longer than 1 s"):
        door_silence.main([*arguments[:2], "--plain", "--connections", "1"])
    assert "inf" in capsys.readouterr().out
