"""metrics.jsonl against a dictionary: the later line wins, whatever was torn is skipped and counted."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.report.series import Metrics, read_metrics, series_of

finite = st.floats(0, 100, allow_nan=False)
entry = st.fixed_dictionaries(
    {
        "branch": st.sampled_from("ab"),
        "round": st.integers(0, 6),
        "entity": st.sampled_from(["server", "client-1"]),
        "split": st.sampled_from(["test", "forget"]),
        "metric": st.sampled_from(["accuracy", "loss"]),
        "value": st.one_of(finite, st.just(float("nan"))),
        "seconds": finite,
    }
)


@given(st.lists(entry, max_size=40), st.integers(0, 30))
def test_reads_what_a_dictionary_would_hold(entries, torn):
    lines = [json.dumps(line).encode() for line in entries]
    cut = lines[-1][:torn] if lines else b""
    metrics = Metrics([*lines, cut, b"\n"])
    expected: dict[tuple, dict[int, float]] = {}
    for line in entries:
        key = (line["branch"], line["split"], line["metric"], line["entity"])
        if line["value"] == line["value"]:
            expected.setdefault(key, {})[line["round"]] = line["value"]
    for key in {(e["branch"], e["split"], e["metric"], e["entity"]) for e in entries}:
        series = metrics.series(*key)
        assert series.as_dict() == expected.get(key, {})
        assert list(series.rounds) == sorted(series.rounds)
    assert metrics.skipped == bool(cut.strip())


def test_lines_that_are_no_measurement_are_counted():
    place = {"branch": "a", "round": 1, "entity": "server", "split": "test", "metric": "accuracy"}
    whole = {**place, "value": 5, "seconds": 0.1}
    odd = [
        "[]",
        "7",
        "{}",
        '{"branch": "a"}',
        json.dumps({**whole, "round": "x"}),
        json.dumps({**whole, "value": "y"}),
        json.dumps({**whole, "value": None}),
    ]
    metrics = Metrics(line.encode() for line in [json.dumps(whole), *odd, "", "\n"])
    assert metrics.skipped == len(odd)
    assert metrics.series("a", "test").as_dict() == {1: 5.0}


points = st.dictionaries(st.integers(0, 30), finite, max_size=12)


@given(points, points, st.integers(0, 30), st.integers(0, 30))
def test_joining_and_cutting_series(early, late, first, last):
    joined = series_of(early).followed_by(series_of(late))
    assert joined.as_dict() == {**early, **late}
    part = joined.between(first, last)
    assert part.as_dict() == {r: v for r, v in joined.as_dict().items() if first <= r <= last}
    assert all(joined.at(r) == joined.as_dict().get(r) for r in range(32))


@given(st.lists(st.tuples(points, st.integers(1, 50)), min_size=1, max_size=4))
def test_mean_over_clients_is_weighted_and_only_where_all_were_measured(clients):
    line = {"branch": "b", "split": "forget", "metric": "accuracy", "seconds": 0.1}
    lines = [
        json.dumps({**line, "round": round, "entity": f"client-{k}", "value": value}).encode()
        for k, (values, _) in enumerate(clients)
        for round, value in values.items()
    ]
    weights = [weight for _, weight in clients]
    mean = Metrics(lines).over_clients("b", "forget", range(len(clients)), weights)
    shared = set.intersection(*(set(values) for values, _ in clients))
    assert set(mean.as_dict()) == shared
    for round in shared:
        expected = np.average([values[round] for values, _ in clients], weights=weights)
        assert np.isclose(mean.at(round), expected)


def test_no_file_no_measurements(tmp_path):
    assert len(read_metrics(tmp_path / "metrics.jsonl").series("a", "test")) == 0
