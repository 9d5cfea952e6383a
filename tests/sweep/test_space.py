"""What a sweep tries: grids, draws, and refusals."""

import itertools
import math

import pytest

from fedunlearn.config.toml_tree import Origin
from fedunlearn.errors import ConfigError
from fedunlearn.sweep.space import Choice, Range, drawn, grid, read_space

SPACE = {
    "settings.lr": Range(1e-4, 0.1, log=True),
    "settings.epochs": Range(2, 5),
    "scale": Choice((1, "a", True)),
}


def test_a_table_of_tables_has_dotted_keys():
    table = {"scale": [1, 2], "settings": {"lr": {"low": 0.1, "high": 1, "log": True}, "epochs": [3]}}
    found = read_space(table, "space.x", Origin("s.toml"))
    assert found == {
        "scale": Choice((1, 2)),
        "settings.lr": Range(0.1, 1, log=True),
        "settings.epochs": Choice((3,)),
    }


def test_a_grid_is_every_combination_once():
    space = {"a": Choice((1, 2)), "b": Choice((3, 4, 5)), "c": Choice((6,))}
    assert [tuple(each.values()) for each in grid(space)] == list(itertools.product((1, 2), (3, 4, 5), (6,)))
    assert all(list(each) == ["a", "b", "c"] for each in grid(space))


def test_more_trials_begin_with_the_same_ones_and_no_other_method_changes_them():
    few, many = (list(drawn(SPACE, "salun", seed=3, trials=n)) for n in (5, 40))
    assert many[:5] == few and len(many) == 40
    assert list(drawn(SPACE, "scrub", seed=3, trials=5)) != few
    assert list(drawn(SPACE, "salun", seed=4, trials=5)) != few


def test_draws_are_within_bounds_and_even():
    tried = list(drawn(SPACE, "x", seed=0, trials=400))
    rates = [each["settings.lr"] for each in tried]
    assert all(1e-4 <= lr <= 0.1 for lr in rates)
    # Powers are even: a third of the trials in each of the three decades, within five standard deviations.
    for low in (-4, -3, -2):
        share = sum(low <= math.log10(lr) < low + 1 for lr in rates) / 400
        assert abs(share - 1 / 3) < 5 * math.sqrt(2 / 9 / 400)
    epochs = [each["settings.epochs"] for each in tried]
    assert {type(number) for number in epochs} == {int} and set(epochs) == {2, 3, 4, 5}
    assert all(abs(epochs.count(n) / 400 - 0.25) < 5 * math.sqrt(3 / 16 / 400) for n in (2, 3, 4, 5))


def test_a_range_ends_where_it_ends():
    for dimension in (Range(1, 3), Range(0.1, 0.3), Range(1e-3, 1.0, log=True), Range(1, 9, log=True)):
        assert dimension.at(0.0) == dimension.low
        assert dimension.at(math.nextafter(1.0, 0.0)) == dimension.high


def test_a_small_space_gives_out_without_repeating():
    tried = list(drawn({"a": Choice((1, 2)), "b": Choice((1, 2))}, "x", seed=0, trials=16))
    assert sorted(tuple(each.values()) for each in tried) == [(1, 1), (1, 2), (2, 1), (2, 2)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"lr": 0.1}, "space.x.lr = 0.1 (s.toml): must be a list of values, or {low = …, high = …}; "),
        ({"lr": []}, "space.x.lr = [] (s.toml): must not be empty"),
        ({"lr": [1, 1]}, "space.x.lr = [1, 1] (s.toml): must not repeat an entry"),
        ({"lr": {"low": 2, "high": 1}}, "space.x.lr.high = 1 (s.toml): must be > low = 2"),
        (
            {"lr": {"low": 0, "high": 1, "log": True}},
            "space.x.lr.low = 0 (s.toml): must be > 0 with log = true",
        ),
        ({"lr": {"low": "a", "high": 1}}, 'space.x.lr.low = "a" (s.toml): must be a finite number'),
        ({"lr": {"low": 1, "high": 2, "log": 1}}, "space.x.lr.log = 1 (s.toml): must be true or false"),
        (
            {"lr": {"low": 1, "high": 2, "step": 1}},
            "space.x.lr.step = 1 (s.toml): unknown key; a range takes",
        ),
    ],
)
def test_what_is_refused(table, message):
    with pytest.raises(ConfigError) as refused:
        read_space(table, "space.x", Origin("s.toml"))
    assert str(refused.value).startswith(message)
