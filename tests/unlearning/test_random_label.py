"""Random label: wrong labels on F and right ones on R, one after the other or together."""

import pytest
import torch

from fedunlearn.randomness import derive_seed
from fedunlearn.unlearning import Conditions, method
from fedunlearn.unlearning.random_label import RandomLabel, random_labels
from fedunlearn.unlearning.salun import SalUn
from tests.oracles import unlearning as oracle
from tests.unlearning import tiny

FORGET, RETAIN = tiny.examples(6, 1), tiny.examples(9, 2)
EVERYTHING = [True] * len(tiny.flat().vector)


def run(model, settings, retain=RETAIN, **conditions):
    name = {RandomLabel: "random-label", SalUn: "salun"}[type(settings)]
    given = {"settings": settings, "generator": tiny.generator(3), "conditions": Conditions(**conditions)}
    return method(name)(model, FORGET, retain, **given)


@pytest.mark.parametrize("kind", [RandomLabel, SalUn])
@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("order", ["forget-then-retain", "mixed"])
def test_two_epochs_are_those_of_the_oracle(order, exclude, kind):
    settings = kind(
        epochs=2, batch_size=4, lr=0.1, weight_decay=0.01, order=order, exclude_true_label=exclude
    )
    model = tiny.flat()
    module, mask = tiny.plain_copy(model), EVERYTHING
    if kind is SalUn:
        mask = oracle.salient(module, *FORGET, settings.saliency)
    drawing = tiny.generator(derive_seed(3, "labels"))
    batches = oracle.relabelled(
        FORGET, RETAIN, tiny.CLASSES, drawing, tiny.generator(3), order, exclude, batch_size=4, epochs=2
    )
    oracle.masked_fine_tune(module, batches, settings, mask)
    torch.testing.assert_close(run(model, settings).vector, tiny.weights(module), rtol=0, atol=1e-12)


@pytest.mark.parametrize("exclude", [False, True])
def test_labels_are_uniform_over_all_classes_or_all_but_the_true_one(exclude):
    labels = torch.arange(5).repeat(4000)
    drawn = random_labels(labels, 5, tiny.generator(), exclude=exclude)
    among = 5 - exclude
    for true in range(5):
        shares = torch.bincount(drawn[labels == true], minlength=5) / 4000
        expected = torch.full((5,), 1 / among)
        if exclude:
            expected[true] = 0
        assert float(shares[true]) == 0 or not exclude
        # Within five standard deviations.
        assert (shares - expected).abs().max() < 5 * (1 / among * (1 - 1 / among) / 4000) ** 0.5


@pytest.mark.parametrize(("order", "steps"), [("forget-then-retain", 2 * (2 + 3)), ("mixed", 2 * 4)])
def test_an_epoch_is_two_passes_or_one(order, steps):
    told = []
    run(tiny.flat(), RandomLabel(epochs=2, batch_size=4, order=order), progress=told.append)
    assert len(told) == steps == told[-1].steps


def test_without_retained_examples_it_learns_f_alone():
    nothing = RETAIN.select(torch.arange(0))
    one, other = (
        run(tiny.flat(), RandomLabel(epochs=2, batch_size=4, order=order), nothing).vector
        for order in ("forget-then-retain", "mixed")
    )
    assert torch.equal(one, other) and not torch.equal(one, tiny.flat().vector)
