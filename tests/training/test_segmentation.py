"""The local loop with masks, their loss and an augmentation: what a plain loop over separate tensors gives."""

import copy

import pytest
import torch
from torch import nn

from fedunlearn.config import TrainConfig
from fedunlearn.data.augmentation import Rot90Flip
from fedunlearn.models.flat import FlatModel
from fedunlearn.randomness import torch_generator
from fedunlearn.training import Recipe, dice_cross_entropy, train_local

SEED = 3
N = 10


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.PReLU(), nn.Conv2d(4, 2, 3, padding=1)
    ).double()


def slices():
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(N, 3, 8, 8, generator=draw, dtype=torch.float64)
    return images, (images.mean(dim=1) > 0.3).to(torch.uint8)


def generator():
    return torch.Generator().manual_seed(SEED)


def plainly(module, images, masks, config, augmentation):
    """Train parameter by parameter with the optimiser that everybody knows."""
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[config.optimizer]
    optimizer = kind(module.train().parameters(), lr=config.lr, weight_decay=config.weight_decay)
    draw, beside, total = generator(), torch_generator(SEED, "augmentation"), 0.0
    for _ in range(config.local_epochs):
        for batch in torch.randperm(N, generator=draw).split(config.batch_size):
            x, y = images[batch], masks[batch]
            if augmentation is not None:
                x, y = augmentation.apply(x, y, augmentation.draw(len(batch), beside))
            p, t = module(x).softmax(1), torch.stack([y == 0, y == 1], 1).double()
            shared, whole = (p * t).sum((2, 3)), (p + t).sum((2, 3))
            dice = 1 - (2 * shared + 1e-5) / (whole + 1e-5)
            loss = (dice.mean() - (t * p.log()).sum(1).mean()) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
    return total / (N * config.local_epochs)


@pytest.mark.parametrize("augmentation", [None, Rot90Flip()], ids=["as it is", "turned"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_weights_statistics_and_loss_are_those_of_the_plain_loop(optimizer, augmentation):
    config = TrainConfig(
        rounds=1, local_epochs=2, batch_size=4, optimizer=optimizer, lr=0.01, weight_decay=1e-4
    )
    (images, masks), module = slices(), network()
    model = FlatModel(copy.deepcopy(module), dtype=torch.float64)
    before = model.vector.clone()
    loss = plainly(module, images, masks, config, augmentation)
    recipe = Recipe(dice_cross_entropy, augmentation)
    result = train_local(model, images, masks, config, lr=config.lr, generator=generator(), recipe=recipe)
    flat = torch.cat([p.detach().reshape(-1) for p in module.parameters()])
    torch.testing.assert_close(model.vector, flat, rtol=0, atol=1e-12)
    assert (model.vector - before).abs().max() > 1e-3
    for name, buffer in module.named_buffers():
        torch.testing.assert_close(model.buffers()[name], buffer, rtol=0, atol=1e-12)
    assert (result.num_examples, result.loss) == (N, pytest.approx(loss, rel=1e-12))


def test_turning_changes_what_is_learnt_and_not_the_order_of_batches():
    images, masks = slices()
    images[:, 0] = torch.arange(N, dtype=torch.float64).view(N, 1, 1)  # survives every turn
    orders, ends = [], []
    for augmentation in (None, Rot90Flip()):
        model, seen = FlatModel(network(), dtype=torch.float64), []
        model.module.register_forward_pre_hook(lambda _, x, seen=seen: seen.append(x[0][:, 0, 0, 0].tolist()))
        train_local(
            model,
            images,
            masks,
            TrainConfig(rounds=1, batch_size=4, lr=0.1),
            lr=0.1,
            generator=generator(),
            recipe=Recipe(dice_cross_entropy, augmentation),
        )
        orders.append(seen)
        ends.append(model.vector)
    assert orders[0] == orders[1] != []
    assert not torch.equal(*ends)
