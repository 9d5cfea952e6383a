"""The source of a routine that another package provides is in the keys of its branches, and of no others."""

import importlib
import json
import shutil
import sys
from importlib.metadata import EntryPoint

import pytest

from fedunlearn import plugins, unlearning
from fedunlearn.simulation import source_hash as module
from fedunlearn.simulation.cache import Cache
from fedunlearn.simulation.runner import read_scorecard, simulate
from tests.e2e.tiny import TINY, tiny
from tests.simulation.cached import has_branch
from tests.simulation.test_cache_key import ROUTINE, keys

SOURCE = """
from dataclasses import dataclass

from fedunlearn.unlearning import Method, Needs, Passes

from . import steps


@dataclass(frozen=True)
class Shrink:
    by: float = 0.5


def shrink(model, forget, retain, *, settings, generator, conditions=None):
    found = model.copy()
    found.vector.mul_(settings.by * steps.FACTOR)
    return found


METHOD = Method("shrink", Shrink, shrink, "ours", lambda settings: Passes(0, 0), lambda settings: Needs(False))
"""
STEPS = "FACTOR = 1.0\n"
TEXT = TINY + ROUTINE + ROUTINE.replace('"random-label"', '"shrink"').replace("settings = {epochs = 1}\n", "")


POINT = EntryPoint("shrink", "theirs.shrink:METHOD", "fedunlearn.routines")


def forget_modules():
    """What a new process begins with."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "theirs"]:
        del sys.modules[name]
    plugins.LOADED.pop(("routines", "shrink"), None)
    module._hash.cache_clear()


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A package of somebody else's with a routine; returns its folder."""
    folder = tmp_path / "site" / "theirs"
    folder.mkdir(parents=True)
    for name, text in {"__init__.py": "", "shrink.py": SOURCE, "steps.py": STEPS}.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(plugins, "_points", lambda kind: {"shrink": (POINT,)} if kind == "routines" else {})
    forget_modules()
    yield folder
    monkeypatch.undo()
    forget_modules()


def edited(path, text):
    path.write_text(text)
    importlib.invalidate_caches()
    forget_modules()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("shrink.py", "by: float = 0.5", "by: float = 0.25"),
        ("steps.py", "1.0", "2.0"),
    ],
)
def test_a_change_of_its_package_is_in_the_key_of_its_branch_alone(theirs, file, old, new):
    before = keys(tiny(text=TEXT))
    path = theirs / file
    edited(path, path.read_text().replace(old, new) if path.exists() else new)
    after = keys(tiny(text=TEXT))
    assert {name for name in before if before[name] != after[name]} == {"shrink-0-s1"}


def test_the_same_source_elsewhere_has_the_same_key(theirs, tmp_path, monkeypatch):
    before = keys(tiny(text=TEXT))
    shutil.copytree(theirs, tmp_path / "elsewhere" / "theirs")
    shutil.rmtree(theirs)
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    forget_modules()
    assert keys(tiny(text=TEXT)) == before


def test_one_of_ours_has_nothing_of_it_in_its_key(theirs, monkeypatch):
    with_others = keys(tiny(text=TEXT))
    monkeypatch.setattr(plugins, "_points", lambda kind: {})
    forget_modules()
    alone = keys(tiny(text=TINY + ROUTINE))
    assert alone == {name: key for name, key in with_others.items() if name in alone}


def test_what_is_computed_anew_has_the_new_numbers_and_what_is_not_is_cached(theirs, tmp_path):
    def run(**given):
        folder = simulate(tiny("cache=true", text=TEXT), out=tmp_path / "runs", fresh=True)
        records = json.loads((folder / "branches.json").read_text())
        rows = read_scorecard(folder)["rows"]
        return (
            {r["branch"] for r in records if not r["cached"]},
            [r["metrics"] for r in rows if (r["label"], r["at"]) == ("shrink", "unlearned")],
        )

    _, first = run()
    assert run() == (set(), first)
    edited(theirs / "steps.py", STEPS.replace("1.0", "-3.0"))
    computed, second = run()
    assert computed == {"shrink-0-s1"}
    assert first != second


def test_what_has_no_source_to_be_found_is_never_cached(theirs, tmp_path):
    unlearning.methods()
    (theirs / "shrink.py").unlink()
    first, second = keys(tiny(text=TEXT)), keys(tiny(text=TEXT))
    assert {name for name in first if first[name] != second[name]} == {"shrink-0-s1"}
    cache = Cache(tmp_path / "cache")
    cache.store_branch(first["shrink-0-s1"], None, "shrink-0-s1", {})
    assert not has_branch(cache, first["shrink-0-s1"])
    assert not (tmp_path / "cache").exists()
