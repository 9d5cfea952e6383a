"""Activations measured on a few images: what is counted by hand, and what a larger batch then takes."""

import pytest
import torch
from torch import nn

from fedunlearn.data.augmentation import EnlargeCropFlip
from fedunlearn.models.flat import FlatModel
from fedunlearn.simulation.activations import IN_PASSING, most_alive, of_evaluation, of_training, saved_bytes
from fedunlearn.training import CLASSIFY, Recipe, accelerate, dice_cross_entropy
from tests.training.stacks import clients, network

IMAGE, HIDDEN, OUTPUTS, LABEL = 64 * 4, 8 * 4, 4 * 4, 8


def examples(**shape):
    """Return some images and labels."""
    (images,), (labels,) = clients([16], **shape)
    return images, labels


def test_a_small_network_counted_by_hand():
    """Kept are the image, the hidden layer once, the log-probabilities and the label; of weights nothing."""
    constant, per_image = of_training(network("mlp", hidden=(8,)), *examples(), CLASSIFY)
    assert per_image == IMAGE + HIDDEN + OUTPUTS + LABEL + IN_PASSING * IMAGE
    assert constant == 4, "the sum of the weights of cross-entropy"


def test_images_are_counted_as_they_are_augmented():
    recipe = Recipe(augmentation=EnlargeCropFlip(16))
    _, per_image = of_training(network("mlp", hidden=(8,), size=16), *examples(), recipe)
    assert per_image == 4 * IMAGE + HIDDEN + OUTPUTS + LABEL + IN_PASSING * 4 * IMAGE


@pytest.mark.parametrize("options", [{}, {"precision": "bfloat16"}, {"channels_last": True}], ids=str)
@pytest.mark.parametrize("architecture", ["resnet18", "unet"])
def test_what_is_kept_grows_by_as_much_with_every_image(architecture, options):
    size = {"channels": 3, "size": 16}
    if architecture == "unet":
        model = network("unet", **size, classes=2, base_features=4, levels=3)
        images, _ = examples(**size)
        given, recipe = (images, torch.zeros(16, 16, 16, dtype=torch.uint8)), Recipe(dice_cross_entropy)
    else:
        model, given, recipe = network(architecture, **size), examples(**size), CLASSIFY
    accelerate(model, **options)
    kept = {n: sum(saved_bytes(model, *given, recipe, n)) for n in (2, 5, 16)}
    slope = (kept[5] - kept[2]) / 3
    assert kept[16] == pytest.approx(kept[2] + 14 * slope, rel=1e-3)
    casts = 2 * model.num_parameters if "precision" in options else 0
    constant, per_image = of_training(model, *given, recipe)
    assert constant == pytest.approx(casts, rel=0.05, abs=3000)
    assert slope < per_image < 2 * slope


def test_bfloat16_keeps_about_half():
    size = {"channels": 3, "size": 16}
    model = network("resnet18", **size)
    _, whole = of_training(model, *examples(**size), CLASSIFY)
    accelerate(model, precision="bfloat16")
    _, rounded = of_training(model, *examples(**size), CLASSIFY)
    assert 0.4 * whole < rounded < 0.7 * whole


class Keeper(nn.Module):
    """Holds three images of float64 at once, of which an evaluation's most is made; four are made in all."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        first = images.double()
        second = first + 1
        third = second + 1
        del first
        second += 1
        return (third.view(-1) + 1).sum()


def test_the_most_that_an_evaluation_holds_at_once():
    model, (images, _) = FlatModel(Keeper()), examples()
    for n in (1, 4):
        assert most_alive(model, images, n) == 3 * n * 64 * 8 + 8, "and the sum"
    assert of_evaluation(model, images) == 3 * 64 * 8


def test_views_and_changes_in_place_are_nothing_new():
    model = FlatModel(nn.Sequential(nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(64, 4)))
    images, _ = examples()
    assert most_alive(model, images, 4) == 4 * OUTPUTS


def test_the_model_is_left_in_training_mode():
    model = network("unet", size=16, channels=3, classes=2, base_features=4, levels=3)
    assert model.module.training
    most_alive(model, examples(channels=3, size=16)[0], 2)
    assert all(layer.training for layer in model.module.modules())
