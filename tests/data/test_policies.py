"""Policies: torchvision's own transforms, each image with a seed of its own, whatever other threads draw."""

import threading

import pytest
import torch
from torchvision.transforms import v2

from fedunlearn import plugins, workspace
from fedunlearn.config import loads
from fedunlearn.data.augmentation import Chain, Policy, augmentation_of
from fedunlearn.data.augmentation.policies import SEEDS, TRANSFORMS
from fedunlearn.data.export import DataPart
from fedunlearn.data.pixels import Pixels
from fedunlearn.errors import ConfigError
from tests.e2e.tiny import tiny

COLOUR = Pixels((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
GREY = Pixels((0.1307,), (0.3081,))
ORACLES = {
    "randaugment": v2.RandAugment(num_ops=2, magnitude=9),
    "autoaugment": v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10),
    "augmix": v2.AugMix(severity=3, mixture_width=3, chain_depth=-1, alpha=1.0),
    "trivialaugment": v2.TrivialAugmentWide(num_magnitude_bins=31),
}
"""The papers' defaults, written out."""


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def levels(n, channels, side=32):
    return torch.randint(256, (n, channels, side, side), generator=generator(5), dtype=torch.uint8)


def normalised(image, pixels, dtype):
    mean, std = (torch.tensor(numbers, dtype=dtype).view(-1, 1, 1) for numbers in (pixels.mean, pixels.std))
    return (image.to(dtype) / 255 - mean) / std


def test_there_is_an_oracle_for_every_policy():
    assert {*ORACLES, "random-erasing"} == set(TRANSFORMS)
    assert set(TRANSFORMS) <= set(plugins.names("augmentations"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("pixels", [COLOUR, GREY], ids=["colour", "grey"])
@pytest.mark.parametrize("name", ORACLES)
def test_an_image_becomes_what_torchvision_makes_of_it_alone_after_the_same_seed(name, pixels, dtype):
    shown = levels(40, len(pixels.mean))
    images = torch.stack([normalised(image, pixels, dtype) for image in shown])
    policy = Policy(name, pixels)
    seeds = policy.draw(40, generator(1))
    changed, labels = policy.apply(images, torch.arange(40), seeds)
    assert changed.dtype == dtype and torch.equal(labels, torch.arange(40))
    moved = 0
    for image, seed, found in zip(shown, seeds[:, 0].tolist(), changed, strict=True):
        torch.manual_seed(int(seed))
        expected = ORACLES[name](image)
        assert torch.equal(found, normalised(expected, pixels, dtype))
        moved += not torch.equal(expected, image)
    assert moved > 20


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_erasing_is_torchvision_s_after_normalising(channels):
    images = torch.randn(60, channels, 32, 32, generator=generator())
    policy = Policy("random-erasing", None)
    seeds = policy.draw(60, generator(1))
    changed, _ = policy.apply(images, torch.arange(60), seeds)
    erased = 0
    for image, seed, found in zip(images, seeds[:, 0].tolist(), changed, strict=True):
        torch.manual_seed(int(seed))
        assert torch.equal(
            found, v2.RandomErasing(p=0.5, scale=(0.02, 0.33), ratio=(0.3, 3.3), value=0)(image)
        )
        erased += bool((found == 0).any())
    assert 20 < erased < 40


@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_other_threads_draw_and_seed_meanwhile_changes_nothing(name):
    policy = Policy(name, None if name == "random-erasing" else COLOUR)
    images, seeds = torch.randn(64, 3, 32, 32, generator=generator()), policy.draw(64, generator(1))
    alone, _ = policy.apply(images, torch.arange(64), seeds)
    stop = threading.Event()
    started = threading.Barrier(2)

    def disturb():
        started.wait()
        while not stop.is_set():
            torch.manual_seed(3)
            torch.rand(5)

    other = threading.Thread(target=disturb)
    other.start()
    started.wait()
    try:
        beside, _ = policy.apply(images, torch.arange(64), seeds)
    finally:
        stop.set()
        other.join()
    assert torch.equal(alone, beside)


def test_seeds_are_whole_numbers_that_a_table_of_parameters_keeps():
    seeds = Policy("augmix", COLOUR).draw(10_000, generator())
    assert seeds.dtype == torch.float64 and seeds.shape == (10_000, 1)
    assert torch.equal(seeds, seeds.floor()) and seeds.min() >= 0 and seeds.max() < SEEDS
    assert len(seeds.unique()) == 10_000 and seeds.max() > 0.99 * SEEDS
    assert float(SEEDS - 1) == SEEDS - 1


def test_a_chain_is_one_after_the_other():
    steps = Policy("trivialaugment", COLOUR), Policy("random-erasing", None)
    images, chain = torch.randn(12, 3, 32, 32, generator=generator()), Chain(steps)
    rows = chain.draw(12, generator(1))
    drawing = generator(1)
    assert torch.equal(rows, torch.cat([step.draw(12, drawing) for step in steps], dim=1))
    changed, _ = chain.apply(images, torch.arange(12), rows)
    first, _ = steps[0].apply(images, torch.arange(12), rows[:, :1])
    second, _ = steps[1].apply(first, torch.arange(12), rows[:, 1:])
    assert torch.equal(changed, second) and not torch.equal(first, second)


@pytest.mark.parametrize("source", ["mnist5k", "synthetic-images", "digits"])
def test_pixels_come_back_as_they_were_in_the_file(source):
    settings = {
        "num_classes": 3,
        "image_size": 8,
        "channels": 3,
        "num_train": 40,
        "num_test": 5,
        "difficulty": 0.5,
    }
    keys = settings if source == "synthetic-images" else {}
    found = plugins.call("data", source, settings=plugins.settings_type("data", source)(**keys))
    for dtype in (torch.float32, torch.float64):
        images = found.normalise(found.train_images[:40], dtype)
        shown = found.pixels.levels(images)
        assert torch.equal(shown, (found.train_images[:40].double() * (255 / found.white)).round().byte())
        if found.white == 255:
            assert torch.equal(found.pixels.normalise(shown, images), images)


def test_levels_are_rounded_and_kept_between_black_and_white():
    images = normalised(torch.tensor([[[-30.0, 100.4, 100.6, 300.0]]]), GREY, torch.float64)[None]
    assert GREY.levels(images).flatten().tolist() == [0, 100, 101, 255]
    assert torch.equal(GREY.black(images), normalised(torch.zeros(1, 1, 1), GREY, torch.float64))


# -- by name ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["randaugment", "autoaugment", "augmix", "trivialaugment"])
def test_colours_are_refused_where_there_are_other_channels(name):
    experiment = tiny(f"data.augmentation=crop-flip+{name}")
    two = Pixels((0.5, 0.5), (0.2, 0.2))
    with pytest.raises(
        ConfigError, match=f'data.augmentation: "{name}" is for images of 1 or 3 channels, not of 2'
    ):
        augmentation_of(experiment, two)
    with pytest.raises(ConfigError, match=r"data.channels = 2 .*must be 1 or 3 with data.augmentation = "):
        tiny(f"data.augmentation=crop-flip+{name}", "data.channels=2")
    assert (
        tiny("data.augmentation=crop-flip+random-erasing", "data.channels=2").data.source_settings.channels
        == 2
    )


@pytest.mark.parametrize(
    "name", ["crop", "crop-flip", "randaugment", "autoaugment", "augmix", "trivialaugment"]
)
def test_masks_refuse_them_by_name(name):
    with pytest.raises(ConfigError, match=r'is not for segmentation, .*; that takes "none", "rot90-flip"'):
        tiny(
            f"data.augmentation={name}",
            *("data.source=prostate-phantom", "data.partition=site", "model.name=unet"),
            "federation.num-clients=6",
        )


def test_data_of_a_node_say_what_they_were_normalised_by_or_are_refused(tmp_path):
    from fedunlearn.data.export import CLIENT_FILE, export, read_part

    experiment = tiny("data.augmentation=crop-flip+trivialaugment")
    data = workspace.data_of(experiment, 1)
    export(data, tmp_path / "out")
    part = read_part(tmp_path / "out" / "client-1" / CLIENT_FILE, task="classification", dtype=torch.float32)
    held = part.of_client(4, torch.device("cpu"))
    assert data.pixels is not None
    assert held.pixels == data.pixels
    assert workspace.recipe_of(experiment, held) == workspace.recipe_of(experiment, data)
    silent = DataPart(part.images, part.labels, part.task, part.class_names, 1).of_client(
        4, torch.device("cpu")
    )
    with pytest.raises(ConfigError, match='"crop-flip" must know what the images were normalised by'):
        workspace.recipe_of(experiment, silent)


def test_a_file_may_join_any_of_them():
    text = (
        'name = "x"\ntargets = [[0]]\ndata = {source = "mnist5k", augmentation = "crop+augmix+random-erasing"}\n'
        'model.name = "mlp"\ntrain = {rounds = 1, lr = 0.1}\nmethod = [{name = "natural"}]\n'
    )
    found = augmentation_of(loads(text), GREY)
    assert [getattr(step, "name", "") for step in found.steps] == ["", "augmix", "random-erasing"]
