"""What is pruned is zero for ever, and the rest is fine-tuned."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from fedunlearn.models.flat import FlatModel
from fedunlearn.unlearning import method
from fedunlearn.unlearning.fine_tune import FineTune
from fedunlearn.unlearning.prune_then_unlearn import PruneThenUnlearn, pruned
from tests.oracles import unlearning as oracle
from tests.oracles import unlearning_weights as oracles
from tests.unlearning import tiny

OURS = {"epochs": 2, "batch_size": 4, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}


def run(model, settings):
    forget, retain = tiny.examples(3, 1), tiny.examples(10, 2)
    return method("prune-then-unlearn")(model, forget, retain, settings=settings, generator=tiny.generator(3))


def test_two_epochs_are_those_of_the_oracle():
    settings, model, retain = PruneThenUnlearn(sparsity=0.6, **OURS), tiny.flat(), tiny.examples(10, 2)
    module = tiny.plain_copy(model)
    oracles.prune_then_unlearn(
        module, retain.images, retain.labels, settings, oracle.orders(10, 4, 2, seed=3)
    )
    torch.testing.assert_close(run(model, settings).vector, tiny.weights(module), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.95, 1.0])
def test_the_weights_to_cut_are_torchs(sparsity):
    model = tiny.flat(norm=True)
    module = tiny.plain_copy(model)
    layers = [(layer, "weight") for layer in module if isinstance(layer, nn.Linear)]
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=sparsity)
    found = torch.split(pruned(model, sparsity), [p.numel() for p in model.parameters])
    by_name = dict(zip((name for name, _ in model.module.named_parameters()), found, strict=True))
    cut = {"1.weight": module[1].weight_mask == 0, "4.weight": module[4].weight_mask == 0}
    for name, mask in by_name.items():
        assert torch.equal(mask, cut[name].flatten()) if name in cut else not mask.any()


def test_convolutions_alone():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 2, 2, bias=False), nn.Flatten(), nn.Linear(4, 3, bias=False))
    model = FlatModel(module)
    assert pruned(model, 1.0, convolutions_only=True).tolist() == [True] * 8 + [False] * 12
    assert pruned(model, 1.0).all()


@pytest.mark.parametrize("epochs", [0, 1, 5])
def test_pruned_weights_stay_zero_under_momentum_and_weight_decay(epochs):
    model = tiny.flat()
    mask = pruned(model, 0.5)
    assert model.vector[mask].all()
    found = run(model, PruneThenUnlearn(sparsity=0.5, **OURS | {"epochs": epochs})).vector
    assert torch.equal(found == 0, mask)
    assert ((found != model.vector) | mask).all() == (epochs > 0)


def test_with_nothing_pruned_it_is_fine_tuning():
    model = tiny.flat()
    expected = method("fine-tune")(
        model,
        tiny.examples(3, 1),
        tiny.examples(10, 2),
        settings=FineTune(**OURS),
        generator=tiny.generator(3),
    )
    assert torch.equal(run(model, PruneThenUnlearn(sparsity=0.0, **OURS)).vector, expected.vector)
