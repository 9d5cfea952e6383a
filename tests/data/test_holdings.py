"""partition.json's entry: all of few clients, some of many, and figures over all of them; counted by hand."""

import json
import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.config import DataConfig
from fedunlearn.data import holdings as module
from fedunlearn.data import load_federated
from fedunlearn.data.holdings import LISTED, holdings, listed_clients

SKEWED = DataConfig.of(source="digits", partition="pathological", classes_per_client=2, validation=0.1)


def load(num_clients):
    return load_federated(SKEWED, num_clients, seed=1)


@pytest.mark.parametrize("listed", [8, 40])
def test_counts_and_figures(monkeypatch, listed):
    monkeypatch.setattr(module, "LISTED", listed)
    data = load(40)
    found = json.loads(json.dumps(holdings(data, [(3,), (31,)])))
    labels = [data.train_labels[rows].tolist() for rows in data.clients]
    assert found["num_clients"] == 40
    assert found["classes"] == list(data.class_names)
    assert len(found["clients"]) == listed
    assert {3, 31} <= set(found["clients"])
    assert found["counts"] == [[labels[k].count(c) for c in range(10)] for k in found["clients"]]
    for name, values in (
        ("sizes", [len(mine) for mine in labels]),
        ("classes_held", [len(set(mine)) for mine in labels]),
    ):
        assert found[name] == {
            "least": min(values),
            "median": statistics.median(values),
            "most": max(values),
            "total": sum(values),
        }, "over all clients, listed or not"
    assert found["classes_held"]["median"] == 2


@given(st.integers(1, 5000), st.sets(st.integers(0, 4999), max_size=1500))
def test_who_is_listed(num_clients, forgotten):
    forgotten = {k for k in forgotten if k < num_clients}
    listed = listed_clients(num_clients, forgotten)
    assert listed == sorted(set(listed))
    assert len(listed) == min(num_clients, LISTED)
    assert all(type(k) is int and 0 <= k < num_clients for k in listed)
    assert forgotten <= set(listed) or set(listed) <= forgotten


def test_others_are_listed_at_even_distances():
    listed = listed_clients(100_000, [])
    gaps = {b - a for a, b in pairwise(listed)}
    assert (listed[0], listed[-1]) == (0, 99_999)
    assert gaps <= {100, 101}
