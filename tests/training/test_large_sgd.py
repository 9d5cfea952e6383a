"""SGD for large models: the same bits as PyTorch's own, whichever way the gradients come."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from fedunlearn.config import TrainConfig
from fedunlearn.models.flat import FlatModel
from fedunlearn.training import FlatSGD, make_optimizer, train_local
from fedunlearn.training import large_sgd as room
from fedunlearn.training.large_sgd import LargeSGD


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 50), nn.Tanh(), nn.Linear(50, 4), nn.GroupNorm(2, 4))


def images(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, 1, 6, 6, generator=generator), torch.randint(0, 4, (n,), generator=generator)


def settings(momentum: float = 0.0, weight_decay: float = 0.0) -> TrainConfig:
    return TrainConfig(
        rounds=1, lr=0.1, batch_size=5, local_epochs=2, momentum=momentum, weight_decay=weight_decay
    )


@pytest.fixture(autouse=True)
def every_model_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LARGE", 1)
    monkeypatch.setattr(room, "PIECE", 64)  # many pieces, the last of them short


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
def test_the_same_bits_as_pytorch(momentum: float, weight_decay: float) -> None:
    plain, model = net(), FlatModel(net())
    theirs = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=momentum, weight_decay=weight_decay)
    ours = make_optimizer(model, settings(momentum, weight_decay), lr=0.1)
    assert isinstance(ours, LargeSGD)
    for n in (3, 7, 5):
        inputs, labels = images(n)
        theirs.zero_grad()
        nn.functional.cross_entropy(plain(inputs), labels).backward()
        theirs.step()
        model.drop_grad()
        nn.functional.cross_entropy(model.module(inputs), labels).backward()
        ours.step()
        assert torch.equal(model.vector, torch.cat([p.detach().reshape(-1) for p in plain.parameters()]))


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_local_training_ends_in_the_same_bits_either_way(momentum: float, monkeypatch) -> None:
    found = []
    for large in (1, 10**9):
        monkeypatch.setattr(room, "LARGE", large)
        model = FlatModel(net())
        generator = torch.Generator().manual_seed(1)
        result = train_local(model, *images(23), settings(momentum, 1e-3), lr=0.1, generator=generator)
        found.append((result.loss, model.vector))
    for (loss, vector), (other_loss, other) in pairwise(found):
        assert loss == other_loss
        assert torch.equal(vector, other)


def test_a_parameter_without_a_gradient_decays_like_one_with_gradient_zero() -> None:
    model = FlatModel(net())
    before = model.vector.clone()
    model.drop_grad()
    LargeSGD(model, lr=0.5, momentum=0.0, weight_decay=0.1).step()
    torch.testing.assert_close(model.vector, before * (1 - 0.5 * 0.1))


def test_it_is_for_large_models_on_a_processor(monkeypatch) -> None:
    model = FlatModel(net())
    assert LargeSGD.suits(model)
    monkeypatch.setattr(room, "LARGE", model.num_parameters + 1)
    assert isinstance(make_optimizer(model, settings(), lr=0.1), FlatSGD)


def test_dropped_gradients_come_back_into_the_vector_when_cleared() -> None:
    model = FlatModel(net())
    inputs, labels = images(4)

    def backward() -> None:
        nn.functional.cross_entropy(model.module(inputs), labels).backward()

    model.drop_grad()
    backward()
    apart = torch.cat([p.grad.reshape(-1) for p in model.parameters])
    assert (model.gradient == 0).all()
    model.zero_grad()
    backward()
    assert torch.equal(model.gradient, apart)
    assert (apart != 0).any()
