"""What must not change a bit does not: workers, where it runs, what was there before, the cache."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.evaluation import scorecard
from fedunlearn.federation.local import LocalGrid
from fedunlearn.simulation import engines
from fedunlearn.simulation.runner import read_scorecard
from tests.e2e.tiny import PARTS, PARTS_TIMELINE, TIMELINE, card, checkpoints, everything, run, tiny
from tests.federation.ray_sessions import own_ray

TEXTS = [None, TIMELINE, PARTS, PARTS_TIMELINE]
IDS = ["targets", "timeline", "parts", "parts-timeline"]


@pytest.mark.parametrize("text", TEXTS, ids=IDS)
def test_one_worker_and_two_write_the_same_bytes(text: str | None, tmp_path: Path) -> None:
    options = {} if text is None else {"text": text}
    one = run(tiny("engine.workers=1", **options), tmp_path / "one")
    two = run(tiny("engine.workers=2", **options), tmp_path / "two")
    assert len(checkpoints(one)) > 5
    assert everything(one) == everything(two)
    assert scorecard.dumps(card(one)) == scorecard.dumps(card(two))


@pytest.mark.parametrize("text", TEXTS, ids=IDS)
def test_clients_asked_by_message_give_the_same_bytes_as_the_direct_way(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Flower ClientApp and the engine's own way are two doors to one routine."""
    options = {} if text is None else {"text": text}
    direct = run(tiny(**options), tmp_path / "direct")
    asked = []
    answer = LocalGrid._answer

    def without_trainer(*args: Any, **kwargs: Any) -> LocalGrid:
        return LocalGrid(*args, **{**kwargs, "routine": None})

    def counted(self: LocalGrid, message: Any) -> Any:
        asked.append(message.metadata.message_type)
        return answer(self, message)

    monkeypatch.setattr(engines, "LocalGrid", without_trainer)
    monkeypatch.setattr(LocalGrid, "_answer", counted)
    by_message = run(tiny(**options), tmp_path / "messages")
    assert {"train", "train.forget"} <= set(asked)
    assert everything(direct) == everything(by_message)


@pytest.mark.capability("ray")
def test_clients_on_rays_actors_give_the_same_bytes(tmp_path: Path) -> None:
    here = run(tiny(text=PARTS), tmp_path / "here")
    with own_ray(cpus=1):
        there = run(tiny("engine.name=ray", "engine.workers=1", text=PARTS), tmp_path / "there")
    assert everything(here) == everything(there)


def test_half_of_the_clients_per_round(tmp_path: Path) -> None:
    half = "federation.participation=0.5"
    one = run(tiny(half, "engine.workers=1"), tmp_path / "one")
    two = run(tiny(half, "engine.workers=2"), tmp_path / "two")
    assert everything(one) == everything(two)
    assert checkpoints(one) != checkpoints(run(tiny(), tmp_path / "all"))


def test_another_seed_gives_another_model(tmp_path: Path) -> None:
    one, two = run(tiny(), tmp_path), run(tiny("seeds=[2]"), tmp_path)
    assert set(checkpoints(one).values()).isdisjoint(checkpoints(two).values())


def test_the_floor_differs_from_retrain_but_not_in_its_data(tmp_path: Path) -> None:
    written = checkpoints(run(tiny(), tmp_path))
    assert written["retrain-0-s1-r0006.safetensors"] != written["floor-0-s1-r0006.safetensors"]
    rows = {row["label"]: row for row in read_scorecard(run(tiny(), tmp_path, fresh=True))["rows"]}
    assert rows["retrain"]["floor"]["l2_to_retrain"] > 0
    assert rows["retrain"]["gap"]["forget_accuracy"] == 0


def _computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the names of the branches that are computed from here on."""
    from fedunlearn.simulation import runner

    names: list[str] = []
    original = runner._Simulation._compute

    def compute(self: Any, branch: Any, grid: Any) -> Any:
        names.append(branch.name)
        return original(self, branch, grid)

    monkeypatch.setattr(runner._Simulation, "_compute", compute)
    return names


def test_a_second_run_computes_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tiny("cache=true"), tmp_path)
    before, seconds = everything(first), [r["cost"]["seconds"] for r in read_scorecard(first)["rows"]]
    names = _computed(monkeypatch)
    second = run(tiny("cache=true"), tmp_path)
    assert first == second
    assert names == []
    assert everything(second) == before
    rows = read_scorecard(second)["rows"]
    assert [r["cost"]["seconds"] for r in rows] == seconds, "the recorded seconds are shown"
    assert all(r["cost"]["cached"] for r in rows)


def test_a_new_method_trains_only_that_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tiny("cache=true"), tmp_path)
    names = _computed(monkeypatch)
    more = '[[method]]\nname = "puf"\nscale = 1.0\n[[method]]\nname = "puf"\nlabel = "again"\n'
    from tests.e2e.tiny import TINY

    folder = run(tiny("cache=true", text=TINY + more), tmp_path)
    assert names == ["puf-special-1-0-s1"], "one label more for settings that ran already is no computation"
    written = checkpoints(folder)
    assert written["again-0-s1-r0006.safetensors"] == written["puf-special-2-0-s1-r0006.safetensors"]


@pytest.mark.parametrize(
    ("change", "computed"),
    [
        ("train.lr=0.2", "all"),
        ("data.alpha=0.9", "all"),
        ("engine.threads-per-client=2", "all"),
        ("federation.participation=0.5", "all"),
        ("method[1].scale=3", "method"),
        ("recover.epsilon=1", "methods"),
        ("engine.workers=2", "none"),
        ("measures.mia-samples=10", "none"),
    ],
)
def test_what_changes_bits_is_in_the_key(
    change: str, computed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny("cache=true"), tmp_path)
    names = _computed(monkeypatch)
    run(tiny("cache=true", change), tmp_path)
    methods = ["puf-special-2-0-s1", "natural-0-s1"]
    assert (
        names
        == {
            "all": ["original-s1", "retrain-0-s1", "floor-0-s1", *methods],
            "methods": methods,
            "method": ["puf-special-3-0-s1"],
            "none": [],
        }[computed]
    )


def test_metrics_and_branches_are_complete_after_a_cached_run(tmp_path: Path) -> None:
    first = run(tiny("cache=true"), tmp_path)

    def lines(folder: Path) -> set[str]:
        return set((folder / "metrics.jsonl").read_text().splitlines())

    def records(folder: Path) -> list[dict[str, Any]]:
        # What computed a branch is told of those that were computed here.
        told_here = {"cached": None, "engine": None}
        return [{**r, **told_here} for r in json.loads((folder / "branches.json").read_text())]

    before = lines(first), records(first)
    again = run(tiny("cache=true"), tmp_path)
    assert (lines(again), records(again)) == before
