"""Fine-tune is ordinary training on R."""

import torch

from fedunlearn.unlearning import method
from fedunlearn.unlearning.fine_tune import FineTune
from tests.oracles import unlearning as oracle
from tests.unlearning import tiny


def test_two_epochs_are_those_of_the_oracle():
    settings = FineTune(epochs=2, batch_size=4, lr=0.1, weight_decay=0.01)
    model, forget, retain = tiny.flat(), tiny.examples(3, 1), tiny.examples(10, 2)
    module = tiny.plain_copy(model)
    oracle.fine_tune(module, retain.images, retain.labels, settings, oracle.orders(10, 4, 2, seed=3))
    found = method("fine-tune")(model, forget, retain, settings=settings, generator=tiny.generator(3))
    torch.testing.assert_close(found.vector, tiny.weights(module), rtol=0, atol=1e-12)


def test_what_is_forgotten_does_not_matter():
    model, retain = tiny.flat(), tiny.examples(10, 2)
    one, other = (
        method("fine-tune")(model, tiny.examples(3, seed), retain, generator=tiny.generator()).vector
        for seed in (1, 4)
    )
    assert torch.equal(one, other)
    assert not torch.equal(one, model.vector)
