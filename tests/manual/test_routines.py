"""docs/unlearning.md is what the methods say of themselves."""

import re
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

from fedunlearn import plugins
from fedunlearn.manual.routines import page
from fedunlearn.simulation.runner import simulate
from fedunlearn.simulation.source_hash import UNKNOWN, component_source
from fedunlearn.unlearning import methods
from tests.e2e.tiny import tiny
from tests.simulation.test_diverged import POOLED, rows_of

PAGE = Path(__file__).parents[2] / "docs" / "unlearning.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m fedunlearn.manual"


def test_every_method_says_formula_source_and_deviations():
    sections = page().split("\n## ")[3:]  # a method of your own, what is measured
    assert [section.partition("\n")[0] for section in sections] == list(methods())
    for section in sections:
        for heading in ("**Formula", "**Source", "**Deviations"):
            assert heading in section, (section.partition("\n")[0], heading)
        assert "Defaults, and what else may be given: `" in section


def test_bounds_are_on_the_page():
    section = page().split("\n## salun\n")[1]
    assert "`saliency = 0.5` (> 0 and <= 1), `epochs = 10` (>= 1)," in section
    assert '`order = "forget-then-retain"` (or "mixed"), `exclude-true-label = false`,' in section


def test_the_method_of_your_own_runs_as_it_stands_there(tmp_path, monkeypatch):
    section = page().split("\n## A method of your own\n")[1].split("\n## ")[0]
    code, project = (
        re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)[1] for language in ("python", "toml")
    )
    told = tomllib.loads(project)
    ((name, value),) = told["project"]["entry-points"]["fedunlearn.routines"].items()
    (module,) = told["tool"]["setuptools"]["py-modules"]
    assert f"`{module}.py`" in section
    assert f'`routine = "{name}"`' in section
    (tmp_path / f"{module}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint(name, value, "fedunlearn.routines")
    monkeypatch.setattr(plugins, "_points", lambda kind: {name: (point,)} if kind == "routines" else {})
    try:
        assert not component_source("routines", name).startswith(UNKNOWN)
        text = POOLED.replace("gradient-ascent", name).replace("settings = {lr = 1e30, batch-size = 8}\n", "")
        rows = rows_of(simulate(tiny(text=text), out=tmp_path / "runs"), name)
        assert rows[0]["at"] == "unlearned"
        assert all(row["metrics"]["forget_accuracy"] is not None for row in rows)
    finally:
        plugins.LOADED.pop(("routines", name))
        sys.modules.pop(module, None)
