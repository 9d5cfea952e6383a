"""Augmented stacks: every model is shown what it would be shown alone."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.data.augmentation import EnlargeCropFlip, Rot90Flip, RotateCropFlip
from fedunlearn.training import (
    CLASSIFY,
    Feed,
    NotStackableError,
    Recipe,
    StackTrainer,
    train_many,
    train_stack,
    why_not_stackable,
)
from fedunlearn.training.feed import Feeds
from fedunlearn.training.stack_augmentation import StackAugmentation
from tests.profiles import some
from tests.training.stacks import CLASSES, clients, generators, network, one_by_one, train_config


class Jolt:
    """Makes of every sample another one, label and all: whoever gets another's draws ends elsewhere."""

    def __init__(self):
        self.asked = []

    def draw(self, n, generator):
        self.asked.append(n)
        return torch.rand(n, 2, generator=generator, dtype=torch.float64)

    def apply(self, images, targets, parameters):
        scale, shift = parameters.unbind(1)
        targets = (targets + (shift * CLASSES).long()) % CLASSES
        return images * (0.5 + scale).to(images.dtype).view(-1, 1, 1, 1), targets


def stacked(model, start, images, labels, config, augmentation, *, at_once=None, draws=None):
    counts = [len(mine) for mine in labels]
    draws = generators(len(counts)) if draws is None else draws
    feed = Feed(torch.cat(images), torch.cat(labels), counts, config, draws, augmentation=augmentation)
    return StackTrainer(model).train(start, feed, config, lr=0.1, at_once=at_once)


def compare(model, images, labels, config, augmentation, *, tolerance, at_once=None):
    start, recipe = model.vector.clone(), Recipe(augmentation=augmentation)
    expected, losses = one_by_one(model, start, images, labels, config, lr=0.1, recipe=recipe)
    result = stacked(model, start, images, labels, config, augmentation, at_once=at_once)
    assert (result.vectors - expected).abs().max() <= tolerance
    assert result.losses == pytest.approx(losses, rel=1e-4 if tolerance > 1e-9 else 1e-9)
    plain, _ = one_by_one(model, start, images, labels, config, lr=0.1)
    assert (plain - expected).abs().max() > 100 * tolerance, "or nothing was augmented"


@pytest.mark.slow
@given(
    counts=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    batch_size=st.integers(1, 24),
    epochs=st.integers(1, 3),
    at_once=st.none() | st.integers(1, 5),
)
@some
def test_stacks_of_any_sizes_draw_as_each_model_alone(counts, batch_size, epochs, at_once):
    config = train_config(batch_size=batch_size, local_epochs=epochs)
    model, (images, labels) = network("mlp", dtype=torch.float64), clients(counts, dtype=torch.float64)
    compare(model, images, labels, config, Jolt(), tolerance=1e-9, at_once=at_once)


@pytest.mark.parametrize("counts", [[32] * 10, [32, 7, 64, 20, 1, 40]])
@pytest.mark.parametrize("augmentation", [RotateCropFlip(), Rot90Flip()])
@pytest.mark.parametrize("architecture", ["mlp", "small-cnn"])
def test_an_epoch_in_single_precision_is_within_the_stated_tolerance(architecture, augmentation, counts):
    config = train_config(batch_size=32)
    compare(network(architecture), *clients(counts), config, augmentation, tolerance=1e-5)


def test_augmentation_may_change_the_size_of_images():
    model, (images, labels) = network(size=16, dtype=torch.float64), clients([5, 11, 9], dtype=torch.float64)
    start, augmentation, config = model.vector.clone(), EnlargeCropFlip(16), train_config(local_epochs=2)
    expected, _ = one_by_one(
        model, start, images, labels, config, lr=0.1, recipe=Recipe(augmentation=augmentation)
    )
    result = stacked(model, start, images, labels, config, augmentation)
    assert (result.vectors - expected).abs().max() <= 1e-9
    rows = [torch.arange(5), torch.arange(5, 16), torch.arange(16, 25)]
    many = train_many(
        model,
        start,
        torch.cat(images),
        torch.cat(labels),
        rows,
        config,
        generators=generators(3),
        recipe=Recipe(augmentation=augmentation),
    )
    assert (many.vectors - expected).abs().max() <= 1e-9


@pytest.mark.parametrize("counts", [[5, 8, 8], [5, 20, 9]])
def test_an_augmentation_is_asked_for_as_many_rows_at_a_time_as_by_each_model_alone(counts):
    config, (images, labels) = train_config(local_epochs=2), clients(counts)
    alone, together, model = Jolt(), Jolt(), network("mlp")
    one_by_one(model, model.vector, images, labels, config, lr=0.1, recipe=Recipe(augmentation=alone))
    stacked(model, model.vector, images, labels, config, together)
    assert together.asked[:-1] == alone.asked and together.asked[-1] == 1, "and once for the shape"


def test_one_generator_seeded_anew_serves_all():
    model, (images, labels), config = network("mlp"), clients([20, 5, 30]), train_config()
    draw = torch.Generator()
    anew = (draw.manual_seed(100 + k) for k in range(3))
    one = stacked(model, model.vector, images, labels, config, Jolt()).vectors
    other = stacked(model, model.vector, images, labels, config, Jolt(), draws=anew).vectors
    assert torch.equal(one, other)


def test_a_feed_gives_the_same_again():
    """As without augmentation: what is drawn is drawn once, when the feed is made."""
    images, labels = clients([5, 8])
    feed = Feed(
        torch.cat(images), torch.cat(labels), [5, 8], train_config(), generators(2), augmentation=Jolt()
    )
    (one,), (two,) = feed.steps(0, 2), feed.steps(0, 2)
    assert torch.equal(one.images, two.images) and torch.equal(one.labels, two.labels)


def test_nothing_is_kept_from_round_to_round():
    """Clients of one batch are the case in which everything is kept where nothing is augmented."""
    model, (images, labels), config = network("mlp"), clients([5, 8]), train_config()
    recipe, found = Recipe(augmentation=Jolt()), []
    for seed in (0, 0, 1):
        draws = [torch.Generator().manual_seed(seed + k) for k in range(2)]
        result = train_stack(
            model, model.vector, images, labels, config, lr=0.1, generators=draws, recipe=recipe
        )
        found.append(result.vectors.clone())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    feeds = Feeds()
    plain = feeds.of(images, labels, config, generators(2))
    changed = feeds.of(images, labels, config, generators(2), Jolt())
    assert plain.stays and not changed.stays
    assert feeds.of(images, labels, config, generators(2)) is plain
    (one,), (other,) = plain.steps(0, 2), changed.steps(0, 2)
    assert not torch.equal(one.images, other.images)


@pytest.mark.parametrize("at_once", [None, 1, 3])
def test_many_models_on_rows_of_one_dataset(at_once):
    model, (images, labels) = network("mlp", dtype=torch.float64), clients([40], dtype=torch.float64)
    rows = [torch.tensor(each) for each in ([0, 1, 2], list(range(30, 3, -1)), [7, 7, 39], [12])]
    config, recipe, start = train_config(local_epochs=2), Recipe(augmentation=Jolt()), model.vector.clone()
    parts = [images[0][mine] for mine in rows], [labels[0][mine] for mine in rows]
    expected, losses = one_by_one(model, start, *parts, config, lr=0.1, recipe=recipe)
    model.load(start)
    result = train_many(
        model,
        start,
        images[0],
        labels[0],
        rows,
        config,
        generators=generators(4),
        at_once=at_once,
        recipe=recipe,
    )
    assert (result.vectors - expected).abs().max() <= (0 if at_once == 1 else 1e-9)
    assert result.losses == pytest.approx(losses, rel=1e-9)


# -- losses -------------------------------------------------------------------------------------------------------


def squared(logits, labels):
    return (logits - F.one_hot(labels, CLASSES)).square().mean()


def test_another_loss_is_refused_by_name():
    model, (images, labels) = network("mlp"), clients([4, 4])
    reason = "the loss 'squared' is not cross-entropy, the only one that a stack computes"
    with pytest.raises(NotStackableError, match=reason):
        train_stack(
            model,
            model.vector,
            images,
            labels,
            train_config(),
            lr=0.1,
            generators=generators(2),
            recipe=Recipe(squared),
        )
    assert why_not_stackable(model.module, recipe=Recipe(squared)) == reason
    assert why_not_stackable(model.module, recipe=CLASSIFY) == ""


def test_many_models_with_another_loss_are_trained_one_by_one():
    model, (images, labels) = network("mlp"), clients([4, 20])
    config, recipe, start = train_config(), Recipe(squared, Jolt()), model.vector.clone()
    expected, losses = one_by_one(model, start, images, labels, config, lr=0.1, recipe=recipe)
    model.load(start)
    rows = [torch.arange(4), torch.arange(4, 24)]
    result = train_many(
        model,
        start,
        torch.cat(images),
        torch.cat(labels),
        rows,
        config,
        generators=generators(2),
        recipe=recipe,
    )
    assert torch.equal(result.vectors, expected) and result.losses == losses


@pytest.mark.parametrize("others", [-1, 1])
def test_every_model_has_a_generator_and_no_other_is_drawn_from(others):
    stack = StackAugmentation(Jolt(), [3, 4], train_config())
    with pytest.raises(ValueError, match="zip"):
        list(stack.beside(generators(2 + others)))
