"""A place for an output filter changes nothing until something is filtered."""

import torch

from fedunlearn.models.flat import FlatModel
from fedunlearn.models.initialise import initialise
from fedunlearn.unlearning import method
from fedunlearn.unlearning.output_filter import with_slot
from tests.unlearning import tiny


def slotted() -> FlatModel:
    return FlatModel(with_slot(tiny.network(), tiny.CLASSES), dtype=torch.float64)


def test_outputs_weights_and_gradients_are_those_without_bit_for_bit():
    images, labels = tiny.examples(9, 1)
    found = []
    for model in (slotted(), tiny.flat()):
        logits = model.module(images)
        torch.nn.functional.cross_entropy(logits, labels).backward()
        found.append((model.vector, logits, model.gradient))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_a_filter_changes_buffers_and_no_architecture():
    model = slotted()
    forget, retain = tiny.examples(5, 1, label=2), tiny.examples(9, 2, label=0)
    found = method("mpru")(model, forget, retain, generator=tiny.generator())
    assert torch.equal(found.vector, model.vector)
    assert found.buffers().keys() == model.buffers().keys()
    other = slotted()
    other.load(found.vector, found.buffers())
    assert (other.module(retain.images).argmax(1) != 2).all()
    assert torch.equal(other.module(retain.images), found.module(retain.images))


def test_random_weights_leave_it_alone():
    model = slotted()
    before = model.buffers()
    initialise(model.module, torch.Generator().manual_seed(1))
    assert all(torch.equal(value, before[name]) for name, value in model.buffers().items())
