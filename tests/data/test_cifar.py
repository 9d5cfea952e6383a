"""CIFAR is read from files in CIFAR's own format, small ones that the tests write."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from fedunlearn.config import DataConfig
from fedunlearn.data import load_federated
from fedunlearn.data.duplicates import count_duplicates
from fedunlearn.errors import ConfigError, UserError

ROWS = 20  # per batch file


def write_batch(path, labels_key, num_classes, seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(ROWS) % num_classes).tolist()
    # CIFAR's layout: a row is 1 024 red pixels, then green, then blue, each plane row by row.
    pixels = rng.integers(0, 256, (ROWS, 3 * 32 * 32), dtype=np.uint8)
    path.write_bytes(pickle.dumps({"data": pixels, labels_key: labels}))
    return pixels, labels


def write_cifar(root, dataset, labels_key, num_classes, monkeypatch):
    """Write every file `dataset` wants under `root`; return the pixels and labels of the training split."""
    folder = root / dataset.base_folder
    folder.mkdir()
    written = {}
    for attribute in ("train_list", "test_list"):
        entries = []
        for name, _ in getattr(dataset, attribute):
            written[name] = write_batch(folder / name, labels_key, num_classes, seed=len(written))
            entries.append([name, md5(folder / name)])
        monkeypatch.setattr(dataset, attribute, entries)
    meta = folder / dataset.meta["filename"]
    meta.write_bytes(pickle.dumps({dataset.meta["key"]: [f"thing {i}" for i in range(num_classes)]}))
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": md5(meta)})
    train = [written[name] for name, _ in dataset.train_list]
    labels = [label for _, batch in train for label in batch]
    return np.concatenate([pixels for pixels, _ in train]), labels


def md5(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    return write_cifar(tmp_path, torchvision.datasets.CIFAR10, "labels", 10, monkeypatch)


def config(directory, source="cifar10"):
    return DataConfig.of(source=source, directory=str(directory), partition="iid", validation=0)


def test_cifar10_pixels_arrive_normalised_and_in_their_places(tmp_path, cifar10):
    pixels, labels = cifar10
    data = load_federated(config(tmp_path), 2, seed=1)
    assert data.train_images.shape == (5 * ROWS, 3, 32, 32)
    assert data.test_images.shape == (ROWS, 3, 32, 32)
    place = np.argsort(data.source_rows)  # where the archive's row is now
    assert data.train_labels[place].tolist() == labels
    assert data.class_names[3] == "thing 3"
    # Image 7, green, row 2, column 5; and the same pixel in blue.
    green, blue = (pixels[7, plane * 1024 + 2 * 32 + 5] / 255 for plane in (1, 2))
    assert data.train_images[place[7], 1, 2, 5].item() == pytest.approx((green - 0.4822) / 0.2435, abs=1e-5)
    assert data.train_images[place[7], 2, 2, 5].item() == pytest.approx((blue - 0.4465) / 0.2616, abs=1e-5)


def test_cifar100_uses_fine_labels_and_its_own_constants(tmp_path, monkeypatch):
    dataset = torchvision.datasets.CIFAR100
    pixels, labels = write_cifar(tmp_path, dataset, "fine_labels", 100, monkeypatch)
    data = load_federated(config(tmp_path, "cifar100"), 2, seed=1)
    assert data.num_classes == 100
    place = np.argsort(data.source_rows)
    assert data.train_labels[place].tolist() == labels
    expected = (pixels[0, 0] / 255 - 0.5071) / 0.2673
    assert data.train_images[place[0], 0, 0, 0].item() == pytest.approx(expected, abs=1e-5)
    assert data.train_images.dtype == torch.float32


def test_a_home_relative_directory_is_understood(tmp_path, cifar10, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert load_federated(config(Path("~") / tmp_path.name), 2, seed=1).num_classes == 10


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_federated(config(tmp_path), 2, seed=1)
    assert str(caught.value) == (
        f"data.directory = '{tmp_path}': there is no folder {tmp_path}/cifar-10-batches-py; "
        "unpack cifar-10-python.tar.gz there"
    )


def test_a_missing_directory_setting_is_named():
    with pytest.raises(ConfigError) as caught:
        DataConfig.of(source="cifar10")
    assert str(caught.value) == 'directory (DataConfig): is required by source = "cifar10"'


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
@pytest.mark.parametrize("problem", ["missing", "damaged"])
def test_a_missing_or_damaged_file_is_named(tmp_path, cifar10, name, problem):
    path = tmp_path / "cifar-10-batches-py" / name
    if problem == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigError) as caught:
        load_federated(config(tmp_path), 2, seed=1)
    assert str(caught.value) == (
        f"data.directory = '{tmp_path}': {path} is {problem}; unpack cifar-10-python.tar.gz there again"
    )


def refusal(directory, source="cifar10"):
    with pytest.raises(UserError) as caught:
        load_federated(config(directory, source), 2, seed=1)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_batch_under_two_names_and_two_that_are_exchanged_are_named(tmp_path, cifar10):
    folder = tmp_path / "cifar-10-batches-py"
    one, other = folder / "data_batch_1", folder / "data_batch_2"
    content = one.read_bytes(), other.read_bytes()
    other.write_bytes(content[0])
    assert refusal(tmp_path).endswith(f"{other} is damaged; unpack cifar-10-python.tar.gz there again")
    one.write_bytes(content[1])
    assert f"{one} is damaged" in refusal(tmp_path)
    (folder / "test_batch").write_bytes(content[0])
    one.write_bytes(content[0])
    other.write_bytes(content[1])
    assert "test_batch is damaged" in refusal(tmp_path), "training data are no test data"


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path, cifar10):
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.unlink()
    path.mkdir()
    assert f"{path} is missing" in refusal(tmp_path)


def test_a_file_that_may_not_be_read_is_named(tmp_path, cifar10, monkeypatch):
    def denied(path, md5):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(torchvision.datasets.utils, "check_integrity", denied)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_1"
    assert refusal(tmp_path) == f"data.directory = '{tmp_path}': {path} cannot be read (Permission denied)"


def test_a_home_of_nobody_is_named():
    assert refusal("~nosuchuser/data").startswith("~nosuchuser/data: there is no home folder for ~nosuchuser")


def test_copies_within_and_across_batches_are_counted(tmp_path, monkeypatch):
    """The real archives have some: they are read, and told of."""
    dataset = torchvision.datasets.CIFAR10
    pixels, _ = write_cifar(tmp_path, dataset, "labels", 10, monkeypatch)
    folder = tmp_path / dataset.base_folder
    for name, row in (("data_batch_2", 3), ("test_batch", 5)):
        batch = pickle.loads((folder / name).read_bytes())
        batch["data"][row] = pixels[0]
        (folder / name).write_bytes(pickle.dumps(batch))
    for attribute in ("train_list", "test_list"):
        entries = [[name, md5(folder / name)] for name, _ in getattr(dataset, attribute)]
        monkeypatch.setattr(dataset, attribute, entries)
    data = load_federated(config(tmp_path), 2, seed=1)
    counted = count_duplicates(data, [(0,), (1,)])
    assert (counted["train"], counted["test"]) == (2, 1)
    assert counted["borders"] == len({owner for k in (0, 1) for owner in [k] if holds(data, k, pixels[0])})


def holds(data, client, pixels):
    """Return whether a client has an image with these pixels, compared channel by channel."""
    wanted = torch.from_numpy(pixels.reshape(3, 32, 32))
    return any(torch.equal(data.pixels.levels(image[None])[0], wanted) for image in data.client(client)[0])


@pytest.mark.parametrize(
    ("label", "message"),
    [(10, "labels run from 0 to 10, and classes from 0 to 9"), (-1, "labels run from -1 to 9")],
)
def test_a_label_that_is_no_class_is_refused_whatever_the_checksum(
    tmp_path, cifar10, monkeypatch, label, message
):
    dataset = torchvision.datasets.CIFAR10
    path = tmp_path / dataset.base_folder / "data_batch_1"
    batch = pickle.loads(path.read_bytes())
    batch["labels"][4] = label
    path.write_bytes(pickle.dumps(batch))
    entries = [[name, md5(path) if name == path.name else sum_] for name, sum_ in dataset.train_list]
    monkeypatch.setattr(dataset, "train_list", entries)
    assert message in refusal(tmp_path)
