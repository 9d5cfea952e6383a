"""The whole of loading: splits, ownership, identity and precision of a federation's data."""

import dataclasses
import runpy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.config import DataConfig
from fedunlearn.config.toml_tree import plain
from fedunlearn.data import FederatedData, Partition, federated, load_federated
from fedunlearn.data.mnist5k import mnist5k
from fedunlearn.data.synthetic import synthetic_images
from fedunlearn.errors import ConfigError

SMALL = DataConfig.of(
    source="synthetic-images", partition="dirichlet", alpha=1.0, num_train=400, num_test=100
)
MNIST = DataConfig.of(source="mnist5k", partition="dirichlet", alpha=0.3)
ORACLE = Path(__file__).parents[1] / "oracles" / "puf_in_one_file.py"


def replace(**changes):
    keys = {key.replace("-", "_"): value for key, value in plain(SMALL).items()} | changes
    if keys["partition"] == "iid":
        del keys["alpha"]
    return DataConfig.of(**keys)


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


@pytest.mark.parametrize("config", [SMALL, MNIST], ids=["synthetic-images", "mnist5k"])
def test_the_scale_of_pixels_is_known(config):
    """Black and white lie 1 / std apart once normalised; both are in every source."""
    data = load_federated(config, 1, seed=1)
    low, high = data.train_images.amin(dim=(0, 2, 3)), data.train_images.amax(dim=(0, 2, 3))
    torch.testing.assert_close(1 / (high - low), torch.tensor(data.pixel_std), rtol=1e-5, atol=0)


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


def test_a_clients_data_are_views_of_the_training_tensors():
    data = load()
    images, labels = data.client(3)
    assert torch.equal(images, data.train_images[data.clients[3]])
    assert torch.equal(labels, data.train_labels[data.clients[3]])
    assert images.untyped_storage().data_ptr() == data.train_images.untyped_storage().data_ptr()
    assert labels.untyped_storage().data_ptr() == data.train_labels.untyped_storage().data_ptr()
    assert data.client(3)[0] is images, "kept: a call in a round is one look-up"


def test_only_so_many_views_are_kept(monkeypatch):
    monkeypatch.setattr(federated, "KEPT_VIEWS", 3)
    data = load()
    for client in (0, 1, 2, 3, 4, 0):
        assert torch.equal(data.client(client)[0], data.train_images[data.clients[client]])
        assert len(data._views) <= 3


def test_threads_that_ask_at_once_get_what_is_theirs(monkeypatch):
    monkeypatch.setattr(federated, "KEPT_VIEWS", 2)
    data = load()
    asked = [number % 5 for number in range(2000)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(data.client, asked))
    for client, (images, labels) in zip(asked, answers, strict=True):
        assert torch.equal(images, data.train_images[data.clients[client]])
        assert len(labels) == len(data.clients[client])


def test_training_rows_lie_client_by_client_and_know_where_they_come_from():
    data = load()
    assert data.clients.rows.tolist() == list(range(len(data.train_labels)))
    whole = synthetic_images(SMALL.source_settings)
    source = whole.normalise(whole.train_images, torch.float32)
    assert torch.equal(data.train_images, source[data.source_rows])
    assert torch.equal(data.train_labels, whole.train_labels[data.source_rows])
    for rows in data.clients:
        assert (np.diff(data.source_rows[rows]) > 0).all()


@given(st.sets(st.integers(0, 4)))
def test_forget_and_retain_rows_split_the_training_rows(forget):
    data = load()
    forgotten, retained = data.indices_of(forget), data.all_but(forget)
    assert sorted([*forgotten, *retained]) == list(range(len(data.train_labels)))
    assert set(forgotten) == {row for client in forget for row in data.clients[client]}
    for rows in (forgotten, retained):
        assert rows.dtype == np.int64
        assert (np.diff(data.source_rows[rows]) > 0).all(), "in an order that no partition changes"


def test_rows_that_do_not_lie_client_by_client_are_refused():
    data = load()
    swapped = Partition(data.clients.rows[::-1], data.clients.offsets)
    with pytest.raises(ValueError, match="client by client"):
        dataclasses.replace(data, clients=swapped)


def test_equal_settings_have_equal_content_hashes():
    assert load().content_hash == load().content_hash
    assert len(load().content_hash) == 64


def test_the_content_hash_of_labelled_images_is_what_it_always_was():
    # Branches in users' caches are found by it: what other tasks add to the hash must not reach this one.
    data = load_federated(DataConfig.of(source="digits"), 4, seed=3)
    assert data.content_hash == "7d4722033c30c73c69846d99e95443c0fc4e70b21120fd9f88a8504e3a9590b9"


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


# Words about the data, and what only slices of volumes have: tests/data/prostate/test_source.py.
NOT_HASHED = ("origin", "notes", "client_names", "slices", "parts", "seed", "pixels")


@pytest.mark.parametrize(
    "field",
    [
        field.name
        for field in dataclasses.fields(FederatedData)
        if field.init and field.name not in NOT_HASHED
    ],
)
def test_the_content_hash_covers_every_field(field):
    data = load()
    value = getattr(data, field)
    if isinstance(value, torch.Tensor):
        changed = value.clone()
        changed.view(-1)[-1] += 1
    elif isinstance(value, Partition):
        changed = Partition(value.rows[:-1], np.minimum(value.offsets, len(value.rows) - 1))
    elif isinstance(value, np.ndarray):
        changed = value + (np.arange(len(value)) == 7)
    elif field == "task":
        changed = "segmentation"
    else:
        changed = (*value[:-1], "another")
    assert dataclasses.replace(data, **{field: changed}).content_hash != data.content_hash


def test_the_same_bytes_in_another_shape_are_other_data():
    data = load()
    flat = data.test_images.view(len(data.test_images), 1, 4, 16)
    assert dataclasses.replace(data, test_images=flat).content_hash != data.content_hash


def test_rows_that_change_hands_change_the_hash():
    data = load()
    offsets = data.clients.offsets.copy()
    offsets[1] += 1  # the second client's first row is now the first one's
    changed = dataclasses.replace(data, clients=Partition(data.clients.rows, offsets))
    assert changed.content_hash != data.content_hash


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
        DataConfig.of(source="imagenet")
    assert str(caught.value) == (
        'source = "imagenet" (DataConfig): must be one of "mnist5k", "digits", "cifar10", "cifar100", '
        '"synthetic-images", "prostate-mri", "prostate-phantom", or "package.module:object"'
    )
