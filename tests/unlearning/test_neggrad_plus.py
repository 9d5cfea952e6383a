"""NegGrad+ is fine-tuning on R with ascent on F beside it."""

import torch

from fedunlearn.randomness import derive_seed
from fedunlearn.unlearning import Conditions, method
from fedunlearn.unlearning.fine_tune import FineTune
from fedunlearn.unlearning.neggrad_plus import NegGradPlus
from tests.oracles import unlearning as oracle
from tests.oracles import unlearning_weights as oracles
from tests.unlearning import tiny

NEGGRAD = method("neggrad-plus")


def run(model, settings, forget=None, **conditions):
    return NEGGRAD(
        model,
        forget or tiny.examples(5, 1),
        tiny.examples(10, 2),
        settings=settings,
        generator=tiny.generator(3),
        conditions=Conditions(**conditions),
    )


def test_two_epochs_are_those_of_the_oracle():
    settings = NegGradPlus(
        alpha=0.7, epochs=2, batch_size=4, forget_batch_size=2, lr=0.1, momentum=0.9, weight_decay=0.01
    )
    model, forget, retain = tiny.flat(), tiny.examples(5, 1), tiny.examples(10, 2)
    module = tiny.plain_copy(model)
    # F has three batches and R three per epoch: twice round.
    beside = oracle.orders(5, 2, 2, seed=derive_seed(3, "forget-batches"))
    oracles.neggrad_plus(
        module,
        retain,
        forget,
        settings,
        oracle.orders(10, 4, 2, seed=3),
        [rows for b in beside for rows in b],
    )
    torch.testing.assert_close(run(model, settings).vector, tiny.weights(module), rtol=0, atol=1e-12)


def test_with_alpha_one_it_is_fine_tuning_on_r():
    ours = {"epochs": 2, "batch_size": 4, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    model = tiny.flat()
    expected = method("fine-tune")(
        model,
        tiny.examples(5, 1),
        tiny.examples(10, 2),
        settings=FineTune(**ours),
        generator=tiny.generator(3),
    )
    assert torch.equal(run(model, NegGradPlus(alpha=1.0, **ours)).vector, expected.vector)


def test_with_alpha_nought_it_climbs_the_loss_of_f():
    """All of F in one batch: each step's loss is what it was before, and more."""
    told = []
    settings = NegGradPlus(alpha=0.0, epochs=2, batch_size=4, forget_batch_size=5, lr=0.1)
    run(tiny.flat(), settings, progress=told.append)
    losses = [-report.loss for report in told]
    assert losses == sorted(losses) and len(losses) == 6


def test_f_comes_round_until_r_is_through():
    seen = []

    def count(logits, labels):
        seen.append(len(labels))
        return torch.nn.functional.cross_entropy(logits, labels)

    run(
        tiny.flat(), NegGradPlus(epochs=1, batch_size=2, forget_batch_size=2), tiny.examples(3, 1), loss=count
    )
    assert seen[0::2] == [2, 2, 2, 2, 2]  # R
    assert seen[1::2] == [2, 1, 2, 1, 2]  # F
