"""Gradient ascent is ordinary training on F with the sign of the loss turned round."""

import torch
import torch.nn.functional as F

from fedunlearn.unlearning import Conditions, Examples, method
from fedunlearn.unlearning.gradient_ascent import GradientAscent
from tests.oracles import unlearning as oracle
from tests.oracles import unlearning_weights as oracles
from tests.unlearning import tiny

ASCENT = method("gradient-ascent")


def test_two_epochs_are_those_of_the_oracle():
    settings = GradientAscent(epochs=2, batch_size=4, lr=0.1, weight_decay=0.01)
    model, forget, retain = tiny.flat(), tiny.examples(10, 1), tiny.examples(3, 2)
    module = tiny.plain_copy(model)
    oracles.ascend(module, forget.images, forget.labels, settings, oracle.orders(10, 4, 2, seed=3))
    found = ASCENT(model, forget, retain, settings=settings, generator=tiny.generator(3))
    torch.testing.assert_close(found.vector, tiny.weights(module), rtol=0, atol=1e-12)


def test_the_loss_of_f_goes_up():
    model, forget = tiny.flat(), tiny.examples(8, 1)
    settings = GradientAscent(epochs=5, batch_size=8, lr=0.05, weight_decay=0)
    told = reports(model, forget, settings)
    losses = [-report.loss for report in told]
    assert {report.steps for report in told} == {5} == {len(told)}
    assert losses == sorted(losses) and losses[-1] > losses[0] + 0.1


def reports(model, forget, settings):
    told = []
    conditions = Conditions(progress=told.append)
    ASCENT(
        model,
        forget,
        tiny.examples(30, 2),
        settings=settings,
        generator=tiny.generator(),
        conditions=conditions,
    )
    return told


def test_it_is_fine_tuning_on_f_with_a_negated_loss():
    model, forget, retain = tiny.flat(norm=True), tiny.examples(8, 1), tiny.examples(9, 2)
    settings = {"epochs": 2, "batch_size": 4, "lr": 0.05}
    tune = method("fine-tune")
    expected = tune(
        model,
        retain,
        forget,
        settings=tune.settings(**settings),
        generator=tiny.generator(),
        conditions=Conditions(loss=lambda logits, labels: -F.cross_entropy(logits, labels)),
    )
    found = ASCENT(model, forget, retain, settings=GradientAscent(**settings), generator=tiny.generator())
    assert torch.equal(found.vector, expected.vector)
    assert torch.equal(found.module[2].running_mean, expected.module[2].running_mean)


def test_what_is_retained_does_not_matter():
    model, forget = tiny.flat(), tiny.examples(10, 1)
    nothing = Examples(forget.images[:0], forget.labels[:0])
    one, other = (
        ASCENT(model, forget, retain, generator=tiny.generator()).vector
        for retain in (tiny.examples(5, 2), nothing)
    )
    assert torch.equal(one, other)
    assert not torch.equal(one, model.vector)
