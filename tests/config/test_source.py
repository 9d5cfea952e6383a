"""Files that cannot be read and overrides that cannot be applied: one line each, whatever is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fedunlearn.config import load, loads, to_toml
from fedunlearn.config.toml_text import inline
from fedunlearn.errors import ConfigError, UserError

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
        "latin.toml": "latin.toml: must be a text file in UTF-8 (byte 8 is not)",
        "folder": "folder: cannot be read (is a directory); name an experiment's TOML file",
    }.items():
        with pytest.raises(ConfigError) as raised:
            load(path)
        assert str(raised.value) == message


def test_a_smoke_run_of_a_file_without_smoke_table() -> None:
    with pytest.raises(ConfigError) as raised:
        loads(WORKING, "x.toml", smoke=True)
    assert str(raised.value) == "smoke (x.toml): is missing; write a smoke run's settings under [smoke]"


@given(st.sampled_from(PATHS), anything)
@example("smoke", {"a": {"b": []}, '"': 1})
def test_whatever_is_written_is_read_or_refused_in_one_line(path: str, value: object) -> None:
    try:
        experiment = loads(WORKING, overrides=[f"{path}={inline(value)}"])
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert loads(to_toml(experiment)) == experiment


@given(
    st.text(max_size=40) | st.sampled_from([0, 60, 120, 160]).map(lambda cut: WORKING[:cut]),
    st.text(max_size=5),
)
def test_whatever_stands_in_a_file_is_refused_in_one_line(text: str, end: str) -> None:
    with pytest.raises(ConfigError) as raised:
        loads(text + end)
    assert len(str(raised.value).splitlines()) == 1


UNREADABLE = {
    "nested": (WORKING + f"smoke = {'[' * 5000}{']' * 5000}\n", "tables and lists are nested deeper than 16"),
    "nested keys": (WORKING + f"[{'.'.join(['a'] * 5000)}]\n", "tables and lists are nested deeper than 16"),
    "nested a little": (
        WORKING + f"x = {'[' * 20}{']' * 20}\n",
        "tables and lists are nested deeper than 16",
    ),
    "a long number": (
        WORKING + f"x = {'9' * 5000}\n",
        "contains an integer with thousands of digits; write a smaller one",
    ),
    "nothing but its mark": ("\ufeff", "name (x.toml): is required and missing"),
}


@pytest.mark.parametrize(("text", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_no_reader_gets_through_is_one_line(text, message):
    with pytest.raises(ConfigError) as raised:
        loads(text, "x.toml")
    assert str(raised.value).endswith(message) and "x.toml" in str(raised.value)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("value", ["[" * 5000 + "]" * 5000, "9" * 5000, "[" * 20 + "]" * 20])
def test_what_no_reader_gets_through_is_one_line_in_an_override(value):
    with pytest.raises(ConfigError, match=r"^train\.rounds \(--set\): ") as raised:
        loads(WORKING, overrides=[f"train.rounds={value}"])
    assert len(str(raised.value)) < 200


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    marked = tmp_path / "x.toml"
    marked.write_text(WORKING, encoding="utf-8-sig")
    assert load(marked) == loads(WORKING) == loads("\ufeff" + WORKING)


TOO_MUCH = [
    ("federation.num-clients", 2**40, "must be <= 1,000,000"),
    ("train.rounds", 2**40, "must be <= 2,147,483,647"),
    ("seeds", [2**63], "must be <= 9,223,372,036,854,775,807"),
    ("targets", [[2**40]], "must be <= 2,147,483,647"),
    ("targets", {"draw": 2**40}, "must be <= 1,000"),
    ("name", "n" * 101, "must be at most 100 characters, as it names files"),
    ("federation.round-timeout", 1e300, "must be <= 1e+09"),
    ("model", {"name": "vit", "depth": 2**30}, "must be <= 1,000"),
    ("data", {"source": "cifar10", "directory": "a\0b"}, "must be a path, which holds no NUL"),
    ("data", {"source": "cifar10", "directory": ""}, "must not be empty"),
]


@pytest.mark.parametrize(("key", "value", "message"), TOO_MUCH)
def test_more_than_there_can_be_is_refused(key, value, message):
    with pytest.raises(ConfigError) as raised:
        loads(WORKING, overrides=[f"{key}={inline(value)}"])
    assert str(raised.value).startswith(key) and str(raised.value).endswith(f": {message}")


def test_made_up_images_that_fit_nowhere_are_refused():
    made_up = ['data={source="synthetic-images", image-size=1024, num-train=1000000, channels=3}']
    with pytest.raises(
        ConfigError, match=r"^data\.num-train = 1000000 .*: makes [\d,]+ numbers with channels"
    ):
        loads(WORKING, overrides=made_up)


def test_four_thousand_million_made_up_numbers_fit_and_no_more():
    made_up = 'data={{source="synthetic-images", image-size=1024, num-train={}, num-test=500}}'
    loads(WORKING, overrides=[made_up.format(4096 - 500 - 10)])
    with pytest.raises(ConfigError, match=r"makes 4,296,015,872 numbers .*; the maximum is 4,294,967,296$"):
        loads(WORKING, overrides=[made_up.format(4096 - 500 - 10 + 1)])


def test_parts_of_more_clients_than_can_be_told_apart_are_refused():
    text = WORKING.replace("targets = [[0], [2, 3]]\n", "") + "[[target]]\nclasses = [1]\n"
    assert loads(text).parts
    with pytest.raises(ConfigError, match=r"^target\[1\] .*: makes 200,000 parts of clients' data to forget"):
        loads(text, overrides=["federation.num-clients=200000"])


def test_sets_of_half_the_clients_are_not_counted_out():
    many = loads(WORKING, overrides=["federation.num-clients=1000000", "targets={draw = 3, size = 500000}"])
    assert len(many.target_sets(1)) == 3


def test_a_home_is_found_in_the_path_of_a_file(tmp_path, monkeypatch):
    (tmp_path / "x.toml").write_text(WORKING, encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("~/x.toml") == loads(WORKING)
    with pytest.raises(UserError, match=r"^~nosuch/x.toml: there is no home folder for ~nosuch; write the"):
        load("~nosuch/x.toml")


def test_bytes_that_are_no_text_are_refused_in_an_override():
    with pytest.raises(ConfigError, match=r"^--set 'data.directory=\\udcff': must be text in UTF-8$"):
        loads(WORKING, overrides=["data.directory=\udcff"])
