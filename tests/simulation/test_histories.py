"""What the original keeps for methods that fork from it: each finds what it needs, whatever the others do."""

import json

import torch
from safetensors.torch import load_file

from fedunlearn import config
from fedunlearn.server.history import Keeps
from fedunlearn.simulation.forecast import forecast
from fedunlearn.simulation.runner import simulate
from tests.e2e.tiny import TINY, checkpoints

REMEMBERING, RETURNING = (f"tests.simulation.remembering:{name}" for name in ("Remembering", "Returning"))
EVERYTHING = Keeps()
ALL = f'[[method]]\nname = "{REMEMBERING}"\nlabel = "all"\n'
LAST = f'[[method]]\nname = "{RETURNING}"\nlabel = "last"\n'
SPARSE = f'[[method]]\nname = "{REMEMBERING}"\nevery = 2\nlabel = "sparse"\n'
TWO = TINY.replace("targets = [[1]]", "targets = [[1], [2]]").replace(
    "num-clients = 4", "num-clients = 4\nparticipation = 0.75"
)


def experiment(*methods, cached=False, text=TWO):
    """Return the tiny experiment of two targets with these methods."""
    before, after = text.split("[[method]]", 1)[0], text[text.index("[recover]") :]
    before = before.replace("cache = false", f"cache = {str(cached).lower()}")
    return config.loads(f"{before}{''.join(methods)}{after}")


def run(folder, *methods, **options):
    cached = options.pop("cached", False)
    return simulate(experiment(*methods, cached=cached), out=folder, **options)


def branch_files(folder, label):
    return {name: content for name, content in checkpoints(folder).items() if name.startswith(f"{label}-")}


def records(folder):
    return {
        record["branch"]: record
        for record in json.loads((folder / "branches.json").read_text(encoding="utf-8"))
    }


def kept(folder, keeps=EVERYTHING):
    """Return (round, client or None) → what the original has kept, by the names of its files."""
    found = {}
    for path in (folder / "history" / "original-s1" / keeps.name).rglob("*.safetensors"):
        round, who = int(path.parent.name.removeprefix("round-")), path.name.partition("@")[0]
        client = None if who == "model" else int(who.removeprefix("client-"))
        found[round, client] = load_file(path)["vector"]
    return found


def test_what_was_kept_is_what_the_clients_sent(tmp_path):
    """The average of a round's updates is the step of the model from one checkpoint to the next."""
    folder = run(tmp_path, ALL)
    updates = kept(folder)
    assert {round for round, _ in updates} == {1, 2, 3}
    assert len(updates) == 9
    assert records(folder)["original-s1"]["history"] == 9
    before = load_file(folder / "checkpoints" / "original-s1-r0003.safetensors")["parameters"]
    for client in (1, 2):
        after = load_file(folder / "checkpoints" / f"all-{client - 1}-s1-r0004.safetensors")["parameters"]
        expected = before - sum(delta for (_, k), delta in sorted(updates.items()) if k == client) / 10
        torch.testing.assert_close(after, expected, rtol=0, atol=1e-6)
        assert not torch.equal(after, before)


def test_no_method_changes_what_another_finds_nor_one_target_what_the_next_one_does(tmp_path):
    """Each forgets in its own copy: the first target's run notes that all updates are zero."""
    together = run(tmp_path / "together", ALL, LAST, SPARSE)
    for label, alone in (("all", ALL), ("last", LAST), ("sparse", SPARSE)):
        by_itself = run(tmp_path / label, alone)
        assert branch_files(together, label) == branch_files(by_itself, label)
        assert len(branch_files(together, label)) == 6
    second = experiment(ALL, text=TWO.replace("[[1], [2]]", "[[2]]"))
    by_itself = simulate(second, out=tmp_path / "second")
    for number in (4, 5, 6):
        first, again = (
            load_file(folder / "checkpoints" / f"all-{target}-s1-r{number:04}.safetensors")["parameters"]
            for folder, target in ((by_itself, 0), (together, 1))
        )
        assert torch.equal(first, again)
    assert [path.name for path in (together / "history").iterdir()] == ["original-s1"], "copies are not kept"


def test_the_last_ones_are_those_at_the_fork(tmp_path):
    folder = run(tmp_path, LAST)
    keeps = Keeps("last", "weights", models=True)
    found = kept(folder, keeps)
    assert len([k for _, k in found if k is not None]) == 4
    for round, client in found:
        if client is None:
            assert any(at == round and k is not None for at, k in found)


def test_it_comes_from_the_cache_with_all_that_was_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(tmp_path / "cache"))
    first = run(tmp_path / "one", ALL, cached=True)
    again = run(tmp_path / "two", ALL, SPARSE, cached=True)
    states = {name: record["cached"] for name, record in records(again).items()}
    assert not states["original-s1"], "another method needs more of it"
    assert states["retrain-0-s1"]
    assert branch_files(again, "all") == branch_files(first, "all")
    third = run(tmp_path / "three", ALL, cached=True)
    left = (
        third / "history" / "original-s1" / EVERYTHING.name / "round-000009" / "client-0@000009.safetensors"
    )
    left.parent.mkdir()
    left.write_bytes(b"of a computation that was interrupted")
    run(tmp_path / "three", ALL, cached=True, resume=True)
    assert not left.exists()
    assert all(record["cached"] for record in records(third).values())
    assert kept(third).keys() == kept(first).keys()
    assert all(torch.equal(kept(third)[at], kept(first)[at]) for at in kept(first))


def test_what_somebody_deleted_of_it_is_put_back_or_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(tmp_path / "cache"))
    folder = run(tmp_path / "runs", ALL, cached=True)
    whole = kept(folder)
    (
        folder / "history" / "original-s1" / Keeps().name / "round-000002" / "client-0@000002.safetensors"
    ).unlink(missing_ok=True)
    next(iter((folder / "history").rglob("*.safetensors"))).unlink()
    run(tmp_path / "runs", ALL, cached=True, resume=True)
    assert kept(folder).keys() == whole.keys()


def test_without_such_a_method_nothing_is_kept_and_the_key_is_as_it_was(tmp_path):
    folder = run(tmp_path, '[[method]]\nname = "puf"\n')
    assert not (folder / "history").exists()
    assert "history" not in records(folder)["original-s1"]


def test_check_says_what_it_takes():
    plan = forecast(experiment(ALL, LAST))
    n = plan.parameters
    assert plan.history_bytes == Keeps().num_bytes(3, 3, 4, n) + Keeps(
        "last", "weights", models=True
    ).num_bytes(3, 3, 4, n)
    assert plan.history_bytes == 4 * n * (9 + 4 + 3)
    assert forecast(experiment('[[method]]\nname = "natural"\n')).history_bytes == 0
