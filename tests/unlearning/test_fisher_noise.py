"""Fisher noise: each weight's variance is what the formula says, and nothing else moves."""

import pytest
import torch

from fedunlearn.randomness import torch_generator
from fedunlearn.unlearning import method
from fedunlearn.unlearning.fisher_noise import FisherNoise, blurred, diagonal_fisher
from tests.oracles import unlearning_weights as oracles
from tests.unlearning import tiny

NONE = torch.empty(0, dtype=torch.int64)


def run(model, settings, seed=3, forget=None):
    retain = tiny.examples(6, 2)
    retain = retain.select((retain.labels != 2).nonzero().flatten())
    forget = forget or tiny.examples(3, 1, label=2)
    return method("fisher-noise")(model, forget, retain, settings=settings, generator=tiny.generator(seed))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("power, largest", [(0.5, 1e3), (1.0, 1e3), (0.5, 2.0)])
def test_the_weights_are_those_of_the_oracle(power, largest, norm):
    settings = FisherNoise(sigma=0.1, power=power, largest=largest)
    model, retain = tiny.flat(norm=norm), tiny.examples(6, 2)
    module = tiny.plain_copy(model)
    noise = torch.randn(len(model.vector), generator=torch_generator(3, "noise"), dtype=torch.float64)
    oracles.fisher_noise(module, retain.images[retain.labels != 2], tiny.CLASSES, settings, noise)
    torch.testing.assert_close(run(model, settings).vector, tiny.weights(module), rtol=0, atol=1e-12)


def test_the_fisher_information_is_the_oracles_and_labels_do_not_matter():
    model, examples = tiny.flat(), tiny.examples(7, 1)
    found = diagonal_fisher(model, examples)
    expected = oracles.diagonal_fisher(tiny.plain_copy(model), examples.images, tiny.CLASSES)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.equal(found, diagonal_fisher(model, examples._replace(labels=1 - examples.labels)))


def test_of_a_linear_model_it_is_the_closed_form():
    """∂ log p_y / ∂ b_k = [y = k] − p_k, whose second moment under p is p_k (1 − p_k)."""
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(tiny.FEATURES, tiny.CLASSES)).double()
    model, examples = tiny.FlatModel(module, dtype=torch.float64), tiny.examples(7, 1)
    p = model.module(examples.images).softmax(dim=1).detach()
    of_bias = diagonal_fisher(model, examples)[-tiny.CLASSES :]
    torch.testing.assert_close(of_bias, (p * (1 - p)).mean(dim=0))


def test_without_sigma_nothing_changes():
    model = tiny.flat(norm=True)
    assert torch.equal(run(model, FisherNoise(sigma=0.0)).vector, model.vector)


def test_the_noise_has_the_variance_that_is_stated():
    """The mean square of 200 draws over their variance, for each weight, is 1 ± 5 √(2/200); so is all together."""
    model, settings, draws = tiny.flat(), FisherNoise(sigma=0.2), 200
    retain = tiny.examples(6, 2)
    retain = retain.select((retain.labels != 2).nonzero().flatten())
    means, variance = blurred(model, diagonal_fisher(model, retain), settings, NONE, tiny.CLASSES)
    found = torch.stack([run(model, settings, seed).vector for seed in range(draws)])
    ratios = (found - model.vector).square().mean(dim=0) / variance
    assert torch.equal(means, model.vector)
    assert (ratios - 1).abs().max() < 5 * (2 / draws) ** 0.5
    assert abs(float(ratios.mean()) - 1) < 5 * (2 / draws / len(variance)) ** 0.5


def test_the_variance_is_clamped():
    model, settings = tiny.flat(), FisherNoise(sigma=0.1, largest=7.0)
    fisher = torch.zeros_like(model.vector)
    assert blurred(model, fisher, settings, NONE, tiny.CLASSES)[1].tolist() == pytest.approx(
        [0.07] * len(fisher)
    )


def test_what_the_code_does_besides():
    """Rows of a matrix share their variance; the last layer and biases have ten times as much, it a lower clamp."""
    model, settings = tiny.flat(), FisherNoise(sigma=1.0, power=1.0, as_in_code=True)
    torch.manual_seed(0)
    fisher = torch.rand_like(model.vector) * 0.1
    fisher[::7] = 0.0  # clamped
    gone = torch.tensor([2])
    means, variance = blurred(model, fisher, settings, gone, tiny.CLASSES)
    raw = [1 / (f.view(p.shape) + 1e-8) for f, p in zip(cut(model, fisher), model.parameters, strict=True)]
    for i, (p, mean, found) in enumerate(
        zip(model.parameters, cut(model, means), cut(model, variance), strict=True)
    ):
        last = i >= 2
        expected = raw[i].clamp(max=100 if last else 1000)
        if p.dim() == 2:
            expected = expected.mean(dim=1, keepdim=True).expand(p.shape)
        expected = expected * (10 if last or p.dim() == 1 else 1)
        wanted = p.detach().clone()
        if last:
            expected = expected.clone()
            expected[2], wanted[2] = 1e-3, 0.0
        torch.testing.assert_close(found.view(p.shape), expected)
        assert torch.equal(mean.view(p.shape), wanted)


def test_a_class_counts_as_gone_only_if_r_has_none_of_it():
    settings = FisherNoise(sigma=0.0, as_in_code=True)
    model = tiny.flat()
    head = run(model, settings).module[-1].weight
    before = model.module[-1].weight
    assert [bool((head[k] == before[k]).all()) for k in range(tiny.CLASSES)] == [True, True, False, True]
    found = run(model, settings, forget=tiny.examples(3, 1, label=0))
    # R of these tests has 0 in it, but not 2.
    assert torch.equal(found.vector, model.vector)


def cut(model, vector):
    return torch.split(vector, [p.numel() for p in model.parameters])
