"""ℓ1-sparse is fine-tuning with a penalty that fades out."""

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.unlearning import method
from fedunlearn.unlearning.fine_tune import FineTune
from fedunlearn.unlearning.l1_sparse import L1Sparse, l1_norm, penalty_weight
from tests.oracles import unlearning as oracle
from tests.oracles import unlearning_weights as oracles
from tests.unlearning import tiny

OURS = {"epochs": 2, "batch_size": 4, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}


def run(model, settings):
    forget, retain = tiny.examples(3, 1), tiny.examples(10, 2)
    return method("l1-sparse")(model, forget, retain, settings=settings, generator=tiny.generator(3))


def test_two_epochs_are_those_of_the_oracle():
    settings, model, retain = L1Sparse(gamma=0.03, **OURS), tiny.flat(), tiny.examples(10, 2)
    module = tiny.plain_copy(model)
    oracles.l1_sparse(module, retain.images, retain.labels, settings, oracle.orders(10, 4, 2, seed=3))
    torch.testing.assert_close(run(model, settings).vector, tiny.weights(module), rtol=0, atol=1e-12)


def test_without_a_penalty_it_is_fine_tuning():
    model = tiny.flat()
    expected = method("fine-tune")(
        model,
        tiny.examples(3, 1),
        tiny.examples(10, 2),
        settings=FineTune(**OURS),
        generator=tiny.generator(3),
    ).vector
    assert torch.equal(run(model, L1Sparse(gamma=0.0, **OURS)).vector, expected)
    assert torch.equal(run(model, L1Sparse(gamma=1.0, plain_epochs=2, **OURS)).vector, expected)


@given(st.integers(1, 30), st.data())
def test_the_penalty_fades_in_a_straight_line_to_nothing(epochs, data):
    plain = data.draw(st.integers(0, epochs - 1))
    settings = L1Sparse(gamma=0.5, epochs=epochs, plain_epochs=plain)
    weights = [penalty_weight(settings, epoch) for epoch in range(epochs + 1)]
    assert weights[0] == 0.5
    assert all(weight == 0 for weight in weights[epochs - plain :])
    falls = [a - b for a, b in pairwise(weights[: epochs - plain + 1])]
    torch.testing.assert_close(torch.tensor(falls), torch.full((epochs - plain,), 0.5 / (epochs - plain)))


def test_the_norm_is_that_of_all_parameters_and_its_gradient_is_the_sign():
    model = tiny.flat(norm=True)
    model.zero_grad()
    norm = l1_norm(model)
    norm.backward()
    torch.testing.assert_close(norm.detach(), model.vector.abs().sum())
    assert torch.equal(model.gradient, model.vector.sign())  # BatchNorm's biases are 0, and stay there


def test_the_larger_the_penalty_the_smaller_the_weights():
    sizes = [
        float(run(tiny.flat(), L1Sparse(gamma=gamma, **OURS)).vector.abs().sum()) for gamma in (0, 0.01, 0.05)
    ]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[2] + 0.1
