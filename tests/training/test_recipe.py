"""What a task brings to the local loop: its loss, and what its images go through before every step."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedunlearn.data.augmentation import Rot90Flip, RotateCropFlip
from fedunlearn.models.flat import FlatModel
from fedunlearn.randomness import torch_generator
from fedunlearn.training import Recipe, train_local
from tests.federation.contributions import bits
from tests.training.stacks import CLASSES, clients, generator, network, train_config

SEED = 3


def trained(model, images, labels, config, recipe):
    return train_local(model, images, labels, config, lr=0.1, generator=generator(SEED), recipe=recipe)


def data(n=21):
    images, labels = clients([n])
    return images[0], labels[0]


def test_bit_for_bit_a_plain_loop_that_augments():
    """Per batch as many draws as it has rows, from one generator that is seeded with the seed of the batches'."""
    config, augmentation, (images, labels) = train_config(local_epochs=2), RotateCropFlip(), data()
    model, plain = network(), network()
    result = trained(model, images, labels, config, Recipe(augmentation=augmentation))
    order, draw, losses = generator(SEED), torch_generator(SEED, "augmentation"), []
    for _ in range(2):
        for batch in torch.randperm(21, generator=order).split(8):
            rows = augmentation.draw(len(batch), draw)
            changed, _ = augmentation.apply(images[batch], labels[batch], rows)
            plain.zero_grad()
            loss = F.cross_entropy(plain.module(changed), labels[batch])
            loss.backward()
            with torch.no_grad():
                plain.vector.add_(plain.gradient, alpha=-0.1)
            losses += [loss.item()] * len(batch)
    assert bits(model.vector) == bits(plain.vector)
    assert result.loss == pytest.approx(sum(losses) / 42, rel=1e-12)
    without = network()
    trained(without, images, labels, config, Recipe())
    assert not torch.allclose(without.vector, model.vector, rtol=0, atol=1e-3)


class Spy(nn.Module):
    """Softmax regression that remembers what it was shown."""

    def __init__(self):
        super().__init__()
        self.linear, self.seen = nn.Linear(64, CLASSES), []

    def forward(self, images):
        self.seen.append(images.clone())
        return self.linear(images.flatten(1))


def shown(images, labels, config, augmentation):
    spy = Spy()
    trained(FlatModel(spy), images, labels, config, Recipe(augmentation=augmentation))
    return spy.seen


def test_the_order_of_batches_is_the_same_with_augmentation_and_without():
    config, (images, labels) = train_config(local_epochs=2), data()
    images[:] = torch.arange(21.0).view(-1, 1, 1, 1)  # of one colour, which no symmetry of a square changes
    with_it, without = (shown(images, labels, config, each) for each in (Rot90Flip(), None))
    assert len(with_it) == 6
    assert all(torch.equal(a, b) for a, b in zip(with_it, without, strict=True))


def test_an_image_is_changed_anew_in_every_epoch():
    config, (images, labels) = train_config(local_epochs=3, batch_size=1), data(1)
    seen = shown(images, labels, config, RotateCropFlip())
    assert len({bits(each) for each in (*seen, images)}) == 4


def test_the_global_generators_are_neither_read_nor_moved():
    config, (images, labels), ends = train_config(), data(), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before, model = torch.get_rng_state(), network()
        trained(model, images, labels, config, Recipe(augmentation=RotateCropFlip()))
        assert torch.equal(torch.get_rng_state(), before)
        ends.append(bits(model.vector))
    assert ends[0] == ends[1]


def test_the_data_are_not_changed():
    images, labels = data()
    before = bits(images), bits(labels)
    for augmentation in (RotateCropFlip(), Rot90Flip()):
        trained(network(), images, labels, train_config(), Recipe(augmentation=augmentation))
    assert (bits(images), bits(labels)) == before


class PerPixel(nn.Module):
    """A class of every pixel, by its brightness."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)

    def forward(self, images):
        return self.conv(images)


def test_a_task_s_own_loss_is_given_images_and_masks_that_belong_together():
    seen = []

    def loss(logits, masks):
        seen.append(masks)
        return F.cross_entropy(logits, masks.long())

    images = torch.rand(9, 1, 8, 8, generator=generator(0))
    masks = (images[:, 0] > 0.5).byte()
    torch.manual_seed(0)
    module = PerPixel()
    model = FlatModel(module)
    config = train_config(batch_size=4, local_epochs=40, lr=1.0)
    shown = []
    module.register_forward_pre_hook(lambda _, given: shown.append(given[0].clone()))
    result = train_local(
        model, images, masks, config, lr=1.0, generator=generator(SEED), recipe=Recipe(loss, Rot90Flip())
    )
    assert all(torch.equal((x[:, 0] > 0.5).byte(), m) for x, m in zip(shown, seen, strict=True))
    assert seen[0].shape == (4, 8, 8) and seen[0].dtype == torch.uint8
    assert result.loss < 0.69, "less than guessing: something was learnt of them"
