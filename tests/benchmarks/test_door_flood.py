"""A client that asks without end, beside another: the benchmark in little, and what fails it."""

import json
from dataclasses import replace

import pytest

from benchmarks import door_flood
from fedunlearn.requests.quota import OF_CLIENT

pytestmark = pytest.mark.slow  # a live federation and a door, in processes of their own


def test_one_client_that_asks_without_end_costs_next_to_nothing(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(door_flood, "ROUNDS", 1000)
    monkeypatch.setattr(door_flood, "WINDOW", 6)
    door_flood.main(["--requests", "300", "--others", "3", "--json", str(tmp_path / "f.json")])
    found = json.loads((tmp_path / "f.json").read_text())["figures"]
    assert (found["requests"], found["others"]) == (300, 3)
    # One more once the first is forgotten and the others with it; refused for a day from then on.
    assert OF_CLIENT.open <= found["recorded"] <= OF_CLIENT.open + OF_CLIENT.nothing
    assert found["answers"] == {"202": found["recorded"], "429": 300 - found["recorded"]}
    assert 0 < found["p50"] <= found["p95"] <= found["worst"] and found["p95"] < door_flood.RECEIPT_SECONDS
    assert "was busy for" in capsys.readouterr().out
    slow = replace(door_flood.Figures(**found), p95=1.1)
    monkeypatch.setattr(door_flood, "measure", lambda *_, **__: slow)
    with pytest.raises(SystemExit, match="more than 1 s for a receipt"):
        door_flood.main([])
