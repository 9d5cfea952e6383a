"""Fisher noise: blur every weight as far as R does not need it, so that nothing of F can be read from it.

Formula: θ ← θ + n, n ~ N(0, σ² min(I^{-p}, c)) for each weight by itself, with p = ½ and I the diagonal Fisher
information on R: the mean over its examples x of Σ_y p(y|x) (∂ log p(y|x) / ∂θ)², at the original θ in evaluation
mode. It is the true one, over all labels as the model has them, as in the authors' code, and not the empirical one,
with the labels of the data.

Source: Golatkar, Achille, Soatto, "Eternal Sunshine of the Spotless Net: Selective Forgetting in Deep Networks", CVPR
2020; code AdityaGolatkar/SelectiveForgetting (σ² 1e-6, c 1e3, I + 1e-8, one example at a time).
Deviations: the code has p = 1; and besides (all of it with ``as_in_code``, then set ``power`` to 1) it averages the
variance over the inputs of each unit or filter, clamps it at c/10 in the last layer, takes ten times as much there
and in biases and normalisation, and where F is a whole class puts noise of variance 1e-3 in place of that class's
row of the last layer. As there, the last layer is any with as many units as there are classes.
With ``batch_size`` above 1 the squared gradient is that of a batch's mean, and p(y|x) its mean: faster, as in the
code of SalUn (32), and no longer the Fisher information, but something smaller.
BatchNorm's statistics stay as they are; nothing is augmented. Noise is drawn under the purpose ``noise``.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fedunlearn.config.conditions import Count, NonNegative, Rate
from fedunlearn.config.settings import Settings
from fedunlearn.models.flat import FlatModel
from fedunlearn.randomness import torch_generator
from fedunlearn.unlearning.contract import PLAIN, Conditions, Examples, Method, Passes
from fedunlearn.unlearning.needs import Needs
from fedunlearn.unlearning.steps import finite, frozen, num_batches, num_classes


@dataclass(frozen=True)
class FisherNoise(Settings):
    """Hyper-parameters: ``sigma`` is σ, ``power`` p and ``largest`` c."""

    sigma: NonNegative = 1e-3
    power: NonNegative = 0.5
    largest: Rate = 1e3
    batch_size: Count = 1
    as_in_code: bool = False


def diagonal_fisher(model: FlatModel, examples: Examples, batch_size: int = 1) -> Tensor:
    """Return the diagonal of the true Fisher information, like ``vector``: a backward pass per batch and class."""
    probe = frozen(model)
    total = torch.zeros_like(probe.vector)
    for images in torch.split(examples.images, batch_size):
        log_probabilities = F.log_softmax(probe.forward(images), dim=1)
        shares = log_probabilities.detach().exp().mean(dim=0)
        for share, log_probability in zip(shares, log_probabilities.mean(dim=0), strict=True):
            probe.zero_grad()
            log_probability.backward(retain_graph=True)
            total += share * probe.gradient.square()
    return total / num_batches(examples, batch_size)


def blurred(
    model: FlatModel, fisher: Tensor, settings: FisherNoise, gone: Tensor, classes: int
) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each weight, like ``vector``; ``gone`` are the classes that only F has."""
    means = model.vector.clone()
    variance = settings.sigma**2 * (fisher + 1e-8).pow(-settings.power).clamp(max=settings.largest)
    sizes = [p.numel() for p in model.parameters]
    layers = zip(model.parameters, torch.split(means, sizes), torch.split(variance, sizes), strict=True)
    for p, mean, each in layers if settings.as_in_code else ():
        last, each = p.shape[:1] == (classes,), each.view(p.shape)
        if last:
            each.clamp_(max=settings.sigma**2 * settings.largest / 10)
        if p.dim() > 1:
            each.copy_(each.mean(dim=1, keepdim=True).expand_as(each))
        if last or p.dim() == 1:
            each.mul_(10)
        if last:
            mean.view(p.shape)[gone], each[gone] = 0.0, 1e-3
    return means, variance


def unlearn(
    model: FlatModel,
    forget: Examples,
    retain: Examples,
    *,
    settings: FisherNoise,
    generator: torch.Generator,
    conditions: Conditions = PLAIN,
) -> FlatModel:
    """Return the model with noise on its weights."""
    student = model.copy()
    gone = forget.labels[~torch.isin(forget.labels, retain.labels)]
    fisher = finite(
        diagonal_fisher(model, retain, settings.batch_size),
        "fisher-noise",
        "entries of the Fisher information",
    )
    means, variance = blurred(model, fisher, settings, gone, num_classes(model, retain))
    drawing = torch_generator(generator.initial_seed(), "noise")
    noise = torch.randn(len(variance), generator=drawing, dtype=variance.dtype).to(variance.device)
    student.vector.copy_(means + variance.sqrt() * noise)
    return student


METHOD = Method(
    name="fisher-noise",
    settings=FisherNoise,
    unlearn=unlearn,
    source="Golatkar et al., CVPR 2020",
    needs=lambda settings: Needs(statistics=True),
    passes=lambda settings: Passes(forget=0, retain=5.5),  # with ten classes: ten times backward
)
