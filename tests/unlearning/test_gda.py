"""GDA goes up on F and down on R in turns, and after its ascent epochs down alone."""

import pytest
import torch

from fedunlearn.unlearning import Conditions, method
from fedunlearn.unlearning.fine_tune import FineTune
from fedunlearn.unlearning.gda import GDA
from tests.oracles import unlearning_weights as oracles
from tests.unlearning import tiny


def run(model, settings, **conditions):
    return method("gda")(
        model,
        tiny.examples(5, 1),
        tiny.examples(10, 2),
        settings=settings,
        generator=tiny.generator(3),
        conditions=Conditions(**conditions),
    )


@pytest.mark.parametrize("ascent_epochs", [1, 2])
def test_two_epochs_are_those_of_the_oracle(ascent_epochs):
    settings = GDA(epochs=2, ascent_epochs=ascent_epochs, batch_size=4, forget_batch_size=2, lr=0.1)
    model, forget, retain = tiny.flat(), tiny.examples(5, 1), tiny.examples(10, 2)
    module = tiny.plain_copy(model)
    oracles.gda(module, retain, forget, settings, seed=3)
    torch.testing.assert_close(run(model, settings).vector, tiny.weights(module), rtol=0, atol=1e-12)


def test_without_ascent_it_is_fine_tuning_without_momentum():
    model, plain = tiny.flat(norm=True), {"epochs": 3, "batch_size": 4, "lr": 0.1}
    expected = method("fine-tune")(
        model,
        tiny.examples(5, 1),
        tiny.examples(10, 2),
        settings=FineTune(**plain, momentum=0, weight_decay=0),
        generator=tiny.generator(3),
    )
    found = run(model, GDA(**plain, ascent_epochs=0))
    assert torch.equal(found.vector, expected.vector)
    assert torch.equal(found.module[2].running_var, expected.module[2].running_var)


def test_the_passes_alternate_and_the_ascent_ends():
    signs = []
    settings = GDA(epochs=3, ascent_epochs=2, batch_size=10, forget_batch_size=5, lr=0.01)
    run(tiny.flat(), settings, progress=lambda report: signs.append("-+"[report.loss > 0]))
    assert signs == ["-", "+", "-", "+", "+"]


def test_more_ascent_epochs_than_epochs_are_as_many():
    model, found = tiny.flat(), []
    for ascent_epochs in (2, 7):
        told = []
        settings = GDA(epochs=2, ascent_epochs=ascent_epochs, batch_size=4, lr=0.1)
        found.append(run(model, settings, progress=told.append).vector)
        assert {report.steps for report in told} == {len(told)}
    assert torch.equal(*found)
