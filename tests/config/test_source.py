"""Files that cannot be read and overrides that cannot be applied: one line each, whatever is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedunlearn.config import load, loads, to_toml
from fedunlearn.config.toml_text import inline
from fedunlearn.errors import ConfigError

WORKING = """\
name = "overridden"
targets = [[0], [2, 3]]
train = { rounds = 30, lr = 0.1 }
data = { source = "mnist5k" }
model = { name = "small-cnn" }
federation.num-clients = 5
[[method]]
name = "puf"
[[method]]
name = "natural"
"""

OVERRIDES = [
    ("train.lr=-0.1", "train.lr = -0.1 (--set train.lr=-0.1): must be > 0"),
    ("trian.lr=1", "trian (--set trian.lr=1): unknown key; did you mean train?"),
    ("train={lr=0.1}", "train.rounds (--set train={lr=0.1}): is required and missing"),
    ("train.lr.start=1", "train.lr (--set train.lr.start=1): must be a finite number"),
    ("train.lr", "--set train.lr: must read KEY=VALUE, such as train.lr=0.05"),
    ("train.lr=", "--set train.lr=: must read KEY=VALUE, such as train.lr=0.05"),
    ("=3", "--set =3: must read KEY=VALUE, such as train.lr=0.05"),
    ("train.lr=1\nname='x'", "--set train.lr=1 name='x': must read KEY=VALUE, such as train.lr=0.05"),
    ("seeds=[1", "--set seeds=[1: the value is not valid TOML"),
    (
        "train..lr=1",
        "train..lr (--set train..lr=1): must be a dotted key, such as train.lr or method[2].scale",
    ),
    (
        "method[3].scale=1",
        "method[3].scale (--set method[3].scale=1): "
        "there is no entry 3; entries count from 1 and there are 2",
    ),
    (
        "train[1]=1",
        "train[1] (--set train[1]=1): there is no entry 1; entries count from 1 and there are 0",
    ),
    (
        "federation.num-clients=3",
        "targets[2] = [2, 3] (x.toml): there is no client 3; federation.num-clients = 3, counted from 0",
    ),
    (
        "smoke.train.rounds=3",
        "smoke.train.rounds (--set smoke.train.rounds=3): set train.rounds itself",
    ),
]

anything = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text("ab\n\x7f\"'.[]é", max_size=4) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text("ab.[\n", max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
PATHS = ["targets", "seeds", "smoke", "method", "method[1]", "method[1].name", "method[2].scale"]
PATHS += ["forget", "train", "train.lr", "data.partition", "recover.epsilon", "engine", "new", "data.new"]


@pytest.mark.parametrize(("assignment", "message"), OVERRIDES)
def test_broken_override(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        loads(WORKING, "x.toml", overrides=[assignment])
    assert str(raised.value) == message


def test_a_path_that_holds_no_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("quickstart.toml").write_text(WORKING, encoding="utf-8")
    Path("latin.toml").write_bytes(b'name = "\xe9"')
    Path("folder").mkdir()
    for path, message in {
        "quickstrat.toml": "quickstrat.toml: there is no such file; did you mean quickstart.toml?",
        "nowhere/x.toml": "nowhere/x.toml: there is no such file",
        "latin.toml": "latin.toml: must be a text file in UTF-8",
        "folder": "folder: cannot be read (is a directory); name an experiment's TOML file",
    }.items():
        with pytest.raises(ConfigError) as raised:
            load(path)
        assert str(raised.value) == message


def test_a_smoke_run_of_a_file_without_smoke_table() -> None:
    with pytest.raises(ConfigError) as raised:
        loads(WORKING, "x.toml", smoke=True)
    assert str(raised.value) == "smoke (x.toml): is missing; write what a smoke run changes under [smoke]"


@settings(deadline=None)
@given(st.sampled_from(PATHS), anything)
@example("smoke", {"a": {"b": []}, '"': 1})
def test_whatever_is_written_is_read_or_refused_in_one_line(path: str, value: object) -> None:
    try:
        experiment = loads(WORKING, overrides=[f"{path}={inline(value)}"])
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert loads(to_toml(experiment)) == experiment


@settings(deadline=None)
@given(
    st.text(max_size=40) | st.sampled_from([0, 60, 120, 160]).map(lambda cut: WORKING[:cut]),
    st.text(max_size=5),
)
def test_whatever_stands_in_a_file_is_refused_in_one_line(text: str, end: str) -> None:
    with pytest.raises(ConfigError) as raised:
        loads(text + end)
    assert len(str(raised.value).splitlines()) == 1
