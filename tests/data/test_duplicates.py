"""Copies of images are counted by loops over pixels: within clients, across them, across splits and the border."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.data import duplicates as module
from fedunlearn.data.content import content_numbers
from fedunlearn.data.duplicates import count_duplicates, in_words
from fedunlearn.data.federated import FederatedData
from fedunlearn.data.holdings import holdings
from fedunlearn.data.partition import Partition
from fedunlearn.parts import Part, Parts

NOTHING = {"train": 0, "clients": 0, "labels": 0, "validation": 0, "test": 0, "borders": 0, "border": []}


def images(kinds):
    """Return an image per kind: equal kinds, equal pixels."""
    return torch.tensor(kinds, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, 2, 3) / 3


def federation(train, sizes, *, labels=None, validation=(), test=(100,)):
    """Return data whose client k holds the next ``sizes[k]`` of the training rows; the rest nobody does."""
    splits = {"train": train, "validation": validation, "test": test}
    return FederatedData(
        **{f"{split}_images": images(kinds) for split, kinds in splits.items()},
        train_labels=torch.tensor(labels or [0] * len(train)),
        validation_labels=torch.zeros(len(validation), dtype=torch.int64),
        test_labels=torch.zeros(len(test), dtype=torch.int64),
        clients=Partition(np.arange(sum(sizes)), np.cumsum([0, *sizes])),
        source_rows=np.arange(len(train)),
        class_names=("a", "b"),
    )


def by_loops(data, kinds, together):
    """Count copies pair by pair; `kinds` of train, validation and test."""
    train, validation, test = kinds
    owner = [k for k, rows in enumerate(data.clients) for _ in rows]
    train = train[: len(owner)]
    labels = data.train_labels.tolist()
    rows = range(len(train))

    def some(test_pair):
        return sum(any(i != j and train[i] == train[j] and test_pair(i, j) for j in rows) for i in rows)

    found = {
        "train": some(lambda i, j: True),
        "clients": sum(
            any(owner[a] != owner[b] for a in rows for b in rows if train[a] == train[b] == train[i])
            for i in rows
        ),
        "labels": sum(
            any(labels[a] != labels[b] for a in rows for b in rows if train[a] == train[b] == train[i])
            for i in rows
        ),
        "validation": sum(kind in train for kind in validation),
        "test": sum(kind in train for kind in test),
    }
    borders = []
    for clients in sorted(set(together)):
        gone = [train[i] for i in rows if owner[i] in clients]
        stay = [train[i] for i in rows if owner[i] not in clients]
        border = {
            "clients": list(clients),
            "what": " and ".join(f"client {client}" for client in clients),
            "forgotten": sum(kind in stay for kind in gone),
            "retained": sum(kind in gone for kind in stay),
            "validation": sum(kind in gone for kind in validation),
            "test": sum(kind in gone for kind in test),
        }
        if clients and any(border[key] for key in ("forgotten", "validation", "test")):
            borders.append(border)
    borders.sort(key=lambda border: -border["forgotten"])
    return found | {"borders": len(borders), "border": borders}


@given(
    st.lists(st.integers(0, 9), min_size=6, max_size=14),
    st.lists(st.integers(0, 12), max_size=5),
    st.lists(st.integers(0, 12), min_size=1, max_size=5),
    st.integers(0, 2**30),
)
def test_counts_are_those_of_the_loops(train, validation, test, bits):
    labels = [(bits >> place) & 1 for place in range(len(train))]
    data = federation(train, [2, 1, 2], labels=labels, validation=validation, test=test)
    together = [(0,), (1,), (2,), (0, 2), (0,), ()]
    found = json.loads(json.dumps(count_duplicates(data, together)))
    assert found == by_loops(data, (train, validation, test), together)


def test_every_number_by_hand():
    data = federation(
        [1, 1, 2, 3, 2, 4, 5, 5],
        [3, 2, 1],
        labels=[0, 0, 0, 0, 1, 0, 0, 0],
        validation=[2, 9],
        test=[3, 4, 4, 8],
    )  # the two fives nobody holds
    found = count_duplicates(data, [(0,), (1,), (2,), (0, 1)])
    assert found == {
        "train": 4,
        "clients": 2,
        "labels": 2,
        "validation": 1,
        "test": 3,
        "borders": 4,
        "border": [
            {"clients": [0], "what": "client 0", "forgotten": 1, "retained": 1, "validation": 1, "test": 0},
            {"clients": [1], "what": "client 1", "forgotten": 1, "retained": 1, "validation": 1, "test": 1},
            {
                "clients": [0, 1],
                "what": "client 0 and client 1",
                "forgotten": 0,
                "retained": 0,
                "validation": 1,
                "test": 1,
            },
            {"clients": [2], "what": "client 2", "forgotten": 0, "retained": 0, "validation": 0, "test": 2},
        ],
    }
    assert in_words(found) == [
        "of the training images 4 occur more than once, 2 of these with several clients, 2 under several labels",
        "of the validation images 1 are also training images",
        "of the test images 3 are also training images",
        "forgetting client 0 leaves copies of its images: 1 in the retained data, 1 in validation",
        "forgetting client 1 leaves copies of its images: 1 in the retained data, 1 in validation, 1 in the test set",
        "forgetting client 0 and client 1 leaves copies of its images: 1 in validation, 1 in the test set",
        "forgetting client 2 leaves copies of its images: 2 in the test set",
    ]
    assert in_words(found, borders=1)[3:] == [
        "forgetting client 0 leaves copies of its images: 1 in the retained data, 1 in validation",
        "forgetting leaves copies of 3 more targets, fewer for each",
    ]


def test_where_nothing_is_twice_nothing_is_said():
    found = count_duplicates(federation([1, 2, 3], [2, 1]), [(0,)])
    assert found == NOTHING
    assert in_words(found) == []


def test_a_part_of_a_clients_data_may_have_copies_in_its_rest():
    data = federation([1, 2, 1, 3], [3, 1]).with_parts(Parts([Part(2, 0, samples=(0,))]), seed=1)
    (border,) = count_duplicates(data, [(2,)])["border"]
    assert border == {
        "clients": [2],
        "what": "client 0, 1 sample",
        "forgotten": 1,
        "retained": 1,
        "validation": 0,
        "test": 0,
    }


def test_of_many_sets_those_with_most_are_listed(monkeypatch):
    monkeypatch.setattr(module, "LISTED", 2)
    data = federation([1, 2, 3, 4, 1, 2, 3, 4], [3, 1, 4])
    found = count_duplicates(data, [(0,), (1,), (2,)])
    assert [border["clients"] for border in found["border"]] == [[2], [0]]
    assert in_words(found)[-1] == "forgetting leaves copies of 1 more target, fewer for each"


def test_of_sites_and_of_many_clients_some_are_named():
    data = replace(federation([1, 1], [1, 1]), client_names=("HK", "UCL"))
    assert count_duplicates(data, [(1,)])["border"][0]["what"] == "UCL"
    many = federation([*range(8), 7], [1] * 9)
    assert count_duplicates(many, [tuple(range(8))])["border"][0]["what"] == (
        "client 0 and client 1 and client 2 and client 3 and client 4 and 3 more"
    )


def test_pixels_alone_count_and_all_of_them_do():
    some = torch.rand(50, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert len(set(content_numbers(some).tolist())) == 50
    assert np.array_equal(
        content_numbers(some), content_numbers(some.clone().contiguous(memory_format=torch.channels_last))
    )
    other = some.clone()
    other[7, 2, 3, 3] = torch.nextafter(other[7, 2, 3, 3], torch.tensor(2.0))
    assert np.flatnonzero(content_numbers(some) != content_numbers(other)).tolist() == [7]


def test_of_slices_their_own_plane_counts_not_their_neighbours():
    planes = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    planes[3, 1] = planes[0, 1]
    masks = torch.zeros(4, 5, 5, dtype=torch.uint8)
    data = FederatedData(
        planes, masks, planes[:0], masks[:0], planes[:1].roll(1, dims=1), masks[:1],
        clients=Partition(np.arange(4), np.array([0, 2, 4])),
        source_rows=np.arange(4),
        class_names=("background", "prostate"),
        task="segmentation",
    )  # fmt: skip
    found = count_duplicates(data, [(1,)])
    assert (found["train"], found["clients"], found["test"]) == (2, 2, 0)
    assert "labels" not in found
    assert in_words(found, "slices")[0].startswith("of the training slices 2 occur more than once")


def test_they_are_hashed_once_and_stand_in_the_holdings(monkeypatch):
    data = federation([1, 2, 1], [2, 1])
    seen = []
    monkeypatch.setattr(
        "fedunlearn.data.federated.content_numbers", lambda x: seen.append(x) or content_numbers(x)
    )
    assert holdings(data, [(0,)])["duplicates"] == count_duplicates(data, [(0,)])
    assert len(seen) == 3, "each split once"
    assert holdings(data, [(0,)])["duplicates"]["border"][0]["retained"] == 1
    assert holdings(data, [(0,)])["copies"] == in_words(count_duplicates(data, [(0,)]))
    assert "copies" not in holdings(federation([1, 2], [1, 1]))


def test_the_content_hash_does_not_depend_on_whether_copies_were_counted():
    data = federation([1, 2, 1], [2, 1])
    before = data.content_hash
    count_duplicates(data)
    assert replace(data).content_hash == before


@pytest.mark.parametrize("n", [0, 1])
def test_empty_splits(n):
    data = federation([1, 2], [1, 1], validation=[5] * n)
    assert count_duplicates(data, [(0,)]) == NOTHING
