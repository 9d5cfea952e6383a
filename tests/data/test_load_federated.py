"""The whole of loading: splits, ownership, identity and precision of a federation's data."""

import dataclasses
import runpy
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.config import DataConfig
from fedunlearn.data import PARTITIONERS, SOURCES, FederatedData, load_federated
from fedunlearn.data.mnist5k import mnist5k
from fedunlearn.errors import ConfigError

SMALL = DataConfig(source="synthetic-images", partition="dirichlet", alpha=1.0, num_train=400, num_test=100)
MNIST = DataConfig(source="mnist5k", partition="dirichlet", alpha=0.3)
ORACLE = Path(__file__).parents[1] / "oracles" / "puf_in_one_file.py"


def replace(**changes):
    return dataclasses.replace(SMALL, **changes)


def load(seed=1, num_clients=5, **changes):
    return load_federated(replace(**changes), num_clients, seed)


def test_splits_have_the_sizes_asked_for():
    data = load_federated(MNIST, 10, seed=1)
    assert (len(data.train_labels), len(data.validation_labels), len(data.test_labels)) == (3600, 400, 1000)
    assert sum(map(len, data.clients)) == 3600
    assert (data.num_classes, data.in_channels, data.image_size) == (10, 1, 28)
    assert data.train_images.dtype == torch.float32
    assert data.train_labels.dtype == torch.int64


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_dirichlet_agrees_with_the_one_file_oracle(seed):
    source = mnist5k()
    partition = runpy.run_path(str(ORACLE))["partition"]
    held_out, hands = partition(source.train_labels, seed=seed, num_clients=10, alpha=0.3, validation=0.1)
    data = load_federated(MNIST, 10, seed)
    images = source.normalise(source.train_images, torch.float32)
    assert torch.equal(data.validation_images, images[np.sort(held_out)])
    for client, rows in enumerate(hands):
        own_images, own_labels = data.client(client)
        assert torch.equal(own_images, images[rows])
        assert torch.equal(own_labels, source.train_labels[rows])


def test_the_seed_moves_validation_and_partition_but_not_the_test_set():
    one, two = load(seed=1), load(seed=2)
    assert torch.equal(one.test_images, two.test_images)
    assert not torch.equal(one.validation_images, two.validation_images)
    assert not np.array_equal(one.counts(), two.counts())


def test_validation_training_and_partition_draws_are_independent():
    # Same seed, other partition: the held-out images stay the same ones.
    assert torch.equal(load().validation_images, load(partition="iid").validation_images)


def test_counts_are_a_heat_map_of_clients_and_classes():
    data = load()
    expected = np.zeros((5, 10), dtype=int)
    for client, rows in enumerate(data.clients):
        for row in rows:
            expected[client, data.train_labels[row]] += 1
    assert data.counts().tolist() == expected.tolist()
    assert data.counts().sum() == len(data.train_labels)


def test_a_clients_rows_are_gathered_once():
    data = load()
    images, labels = data.client(3)
    assert torch.equal(images, data.train_images[data.clients[3]])
    assert torch.equal(labels, data.train_labels[data.clients[3]])
    assert data.client(3)[0] is images


@given(st.sets(st.integers(0, 4)))
def test_forget_and_retain_rows_split_the_training_rows(forget):
    data = load()
    forgotten, retained = data.indices_of(forget), data.all_but(forget)
    assert sorted([*forgotten, *retained]) == list(range(len(data.train_labels)))
    assert set(forgotten) == {row for client in forget for row in data.clients[client]}
    for rows in (forgotten, retained):
        assert rows.dtype == np.int64
        assert (np.diff(rows) > 0).all()


def test_equal_settings_have_equal_content_hashes():
    assert load().content_hash == load().content_hash
    assert len(load().content_hash) == 64


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        {"num_clients": 4},
        {"alpha": 2.0},
        {"partition": "iid"},
        {"validation": 0.2},
        {"validation": 0.0},
        {"num_test": 101},
        {"difficulty": 0.51},
    ],
)
def test_the_content_hash_tells_different_data_apart(changes):
    assert load(**changes).content_hash != load().content_hash


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(FederatedData) if field.init])
def test_the_content_hash_covers_every_field(field):
    data = load()
    value = getattr(data, field)
    if isinstance(value, torch.Tensor):
        changed = value.clone()
        changed.view(-1)[-1] += 1
    elif field == "clients":
        changed = (*value[:-1], value[-1][:-1])
    else:
        changed = (*value[:-1], "another")
    assert dataclasses.replace(data, **{field: changed}).content_hash != data.content_hash


def test_the_same_bytes_in_another_shape_are_other_data():
    data = load()
    flat = data.test_images.view(len(data.test_images), 1, 4, 16)
    assert dataclasses.replace(data, test_images=flat).content_hash != data.content_hash


def test_rows_that_change_hands_change_the_hash():
    data = load()
    swapped = (data.clients[1], data.clients[0], *data.clients[2:])
    assert dataclasses.replace(data, clients=swapped).content_hash != data.content_hash


def test_float64_images_are_not_float32_ones_in_disguise():
    single = load_federated(MNIST, 10, seed=1)
    double = load_federated(MNIST, 10, seed=1, dtype=torch.float64)
    for split in ("train", "validation", "test"):
        assert getattr(double, f"{split}_images").dtype == torch.float64
    torch.testing.assert_close(double.train_images.float(), single.train_images)
    assert not torch.equal(double.train_images, single.train_images.double())
    assert single.content_hash != double.content_hash


def test_loading_leaves_the_global_generators_alone():
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    load()
    load_federated(MNIST, 10, seed=1)
    assert torch.equal(torch_before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])


def test_an_unknown_source_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError) as caught:
        load_federated(replace(source="imagenet"), 5, seed=1)
    assert str(caught.value) == (
        "data.source = 'imagenet': must be one of mnist5k, digits, cifar10, cifar100, synthetic-images"
    )


def test_the_registries_are_the_names_of_the_configuration():
    allowed = get_type_hints(DataConfig)
    assert get_args(allowed["source"]) == tuple(SOURCES)
    assert get_args(allowed["partition"]) == tuple(PARTITIONERS)
