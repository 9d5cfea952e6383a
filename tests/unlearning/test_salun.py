"""SalUn moves what the forget loss says matters, and nothing else by a single bit."""

import pytest
import torch

from fedunlearn.unlearning import PLAIN, Conditions, Examples, method
from fedunlearn.unlearning.random_label import random_labels
from fedunlearn.unlearning.salun import SalUn, saliency_mask
from tests.oracles import unlearning as oracle
from tests.unlearning import tiny


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_mask_is_the_oracles(share):
    model, forget = tiny.flat(), tiny.examples(7, 1)
    mask = saliency_mask(model, forget, share, batch_size=3, conditions=PLAIN)
    assert mask.tolist() == oracle.salient(tiny.plain_copy(model), forget.images, forget.labels, share)


def run(model, settings, **conditions):
    return method("salun")(
        model,
        tiny.examples(6, 1),
        tiny.examples(9, 2),
        settings=settings,
        generator=tiny.generator(3),
        conditions=Conditions(**conditions),
    )


def test_masked_weights_stay_bit_for_bit_under_momentum_and_weight_decay():
    model = tiny.flat()
    settings = SalUn(epochs=3, batch_size=4, lr=0.1, momentum=0.9, weight_decay=0.1)
    mask = saliency_mask(model, tiny.examples(6, 1), settings.saliency, 4, PLAIN)
    moved = run(model, settings).vector != model.vector
    assert torch.equal(moved & ~mask, torch.zeros_like(mask))
    assert moved[mask].all()


def test_in_legacy_mode_weight_decay_moves_them():
    model = tiny.flat()
    settings = SalUn(epochs=1, batch_size=4, lr=0.1, weight_decay=0.1, legacy_mask=True)
    mask = saliency_mask(model, tiny.examples(6, 1), settings.saliency, 4, PLAIN)
    assert (run(model, settings).vector != model.vector)[~mask].any()


@pytest.mark.parametrize("exclude", [False, True])
def test_two_epochs_are_those_of_the_oracle(exclude):
    settings = SalUn(epochs=2, batch_size=4, lr=0.1, weight_decay=0.01, exclude_true_label=exclude)
    model, forget, retain = tiny.flat(), tiny.examples(6, 1), tiny.examples(9, 2)
    module = tiny.plain_copy(model)
    mask = oracle.salient(module, forget.images, forget.labels, settings.saliency)
    shuffling = torch.Generator().manual_seed(3)
    drawing = drawn_for_labels(3)
    batches = []
    for _ in range(2):
        wrong = random_labels(forget.labels, tiny.CLASSES, drawing, exclude=exclude)
        for part in (Examples(forget.images, wrong), retain):
            order = torch.randperm(part.size, generator=shuffling).tolist()
            batches += [(part.images[rows], part.labels[rows]) for rows in oracle.cut(order, 4)]
    oracle.masked_fine_tune(module, batches, settings, mask)
    found = run(model, settings)
    torch.testing.assert_close(found.vector, tiny.weights(module), rtol=0, atol=1e-12)


def drawn_for_labels(seed):
    from fedunlearn.randomness import torch_generator

    return torch_generator(seed, "labels")
