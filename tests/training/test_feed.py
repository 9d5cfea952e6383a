"""What stacks are fed, and what is kept of it."""

import gc
import weakref

import pytest
import torch

from fedunlearn.training import feed as feed_module
from fedunlearn.training.feed import Feeds, joined
from tests.training.stacks import clients, generators, train_config


def steps(feed):
    """All that a stack of all models is fed."""
    return list(feed.steps(0, len(feed.counts)))


def same(ones, others):
    return len(ones) == len(others) and all(
        torch.equal(a, b)
        for one, other in zip(ones, others, strict=True)
        for a, b in zip(one, other, strict=True)
        if a is not None or b is not None
    )


def fed(feeds, images, labels, **changes):
    return feeds.of(images, labels, train_config(**changes), generators(len(images)))


def test_images_and_labels_stay_together():
    images, labels = clients([5, 20, 8])
    for mine, classes in zip(images, labels, strict=True):
        mine[:, 0, 0, 0] = classes
    for step in steps(fed(Feeds(), images, labels, local_epochs=2)):
        assert torch.equal(step.images[:, :, 0, 0, 0].t(), step.labels.float())


# -- what is kept ---------------------------------------------------------------------------------------------


def test_clients_of_one_batch_are_gathered_once():
    feeds, (images, labels) = Feeds(), clients([5, 8, 8])
    first = fed(feeds, images, labels)
    assert fed(feeds, list(images), tuple(labels)) is first
    (one,), (two,) = steps(first), steps(first)
    assert one is two


def test_every_epoch_is_fed():
    images, labels = clients([5, 8])
    assert len(steps(fed(Feeds(), images, labels, local_epochs=3))) == 3


def test_clients_of_several_batches_are_shuffled_anew():
    feeds, (images, labels) = Feeds(), clients([9, 8])
    first, second = fed(feeds, images, labels), fed(feeds, images, labels)
    assert first is not second
    other = feeds.of(images, labels, train_config(), reversed(generators(2)))
    assert same(steps(first), steps(second)) and not same(steps(first), steps(other))


@pytest.mark.parametrize("change", ["image", "label", "client", "order", "batch size", "epochs"])
def test_nothing_is_kept_of_what_has_changed(change):
    feeds, (images, labels) = Feeds(), clients([6, 6])
    before = steps(fed(feeds, images, labels))
    changes = {}
    if change == "image":
        images[1][0] = 7.0
    elif change == "label":
        labels[0][0] += 1
    elif change == "client":
        images[1], labels[1] = images[1].clone() + 1, labels[1].clone()
    elif change == "order":
        images.reverse()
        labels.reverse()
    elif change == "batch size":
        changes = {"batch_size": 5}
    else:
        changes = {"local_epochs": 2}
    after = steps(fed(feeds, images, labels, **changes))
    assert same(after, steps(fed(Feeds(), images, labels, **changes)))
    assert not same(after, before)


def test_large_batches_are_gathered_every_time(monkeypatch):
    images, labels = clients([5, 8])
    monkeypatch.setattr(feed_module, "KEPT_BYTES", 13 * 64 * 4 - 1)
    feeds = Feeds()
    feed, again = fed(feeds, images, labels), fed(feeds, images, labels)
    (one,), (two,) = steps(feed), steps(feed)
    assert feed is not again and one is not two and same([one], [two])


def test_the_last_stacks_are_kept_and_no_more():
    feeds = Feeds()
    gone = []
    for _ in range(Feeds.KEPT + 1):
        images, labels = clients([3, 4])
        gone.append(weakref.ref(fed(feeds, images, labels)))
    del images, labels
    gc.collect()
    assert [kept() is None for kept in gone] == [True] + [False] * Feeds.KEPT


# -- data in one piece ----------------------------------------------------------------------------------------


def test_neighbours_in_memory_are_not_copied():
    whole = torch.arange(60.0).view(20, 3)
    parts = list(whole.split([7, 1, 12]))
    assert joined(parts).data_ptr() == whole.data_ptr()
    assert torch.equal(joined(parts), whole)
    assert torch.equal(joined(parts[1:]), whole[7:])


@pytest.mark.parametrize(
    "parts",
    [
        lambda whole: [whole[7:8], whole[:7]],
        lambda whole: [whole[:7], whole[8:]],
        lambda whole: [whole[:7], whole[7:].clone()],
        lambda whole: [whole[::2], whole[1::2]],
        lambda whole: [whole.t(), whole.t()],
    ],
)
def test_whatever_else_is_copied(parts):
    whole = torch.arange(60.0).view(20, 3)
    assert torch.equal(joined(parts(whole)), torch.cat(parts(whole)))
