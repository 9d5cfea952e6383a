"""THE local training loop: clients, retrained oracles and benchmarks all call it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedunlearn.config import TrainConfig
from fedunlearn.models.flat import FlatModel
from fedunlearn.models.global_generators import own_draws
from fedunlearn.randomness import torch_generator
from fedunlearn.training.batch_sizes import batch_sizes, least_batch
from fedunlearn.training.large_sgd import LargeSGD
from fedunlearn.training.optimizers import make_optimizer
from fedunlearn.training.recipe import CLASSIFY, Recipe


@dataclass(frozen=True)
class LocalResult:
    """What local training reports beside the weights it leaves in the model."""

    num_examples: int
    """Rows of the client's training data (not rows times epochs)."""
    loss: float
    """Mean loss (for cross-entropy in nats) over all rows seen, each at the weights it was seen with."""
    ran: str = "train"
    """What was run: training, or a routine with its settings, as the round named it."""
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    """What a routine has left to be sent back beside the weights."""


def learning_rate(settings: TrainConfig, round: int) -> float:
    """Learning rate of a round, counted from 1: ``lr · lr_decay**(round − 1)``.

    The schedule depends on the round alone, so it goes on through unlearning and recovery.
    """
    return settings.lr * settings.lr_decay ** (round - 1)


def train_local(
    model: FlatModel,
    images: Tensor,
    labels: Tensor,
    settings: TrainConfig,
    *,
    lr: float,
    generator: torch.Generator,
    recipe: Recipe = CLASSIFY,
) -> LocalResult:
    """Train the model in place on one client's data for ``settings.local_epochs`` epochs.

    Each epoch visits all rows once in the order ``torch.randperm(n, generator=generator)``, in batches of
    ``settings.batch_size``; the last, smaller batch is kept, as :mod:`fedunlearn.training.batch_sizes` says.

    Parameters
    ----------
    model
        Starts from the weights it holds. Its ``forward`` is what computes the outputs.
    images : Tensor, shape (n, channels, height, width)
        The client's training data, on the model's device and in its dtype.
    labels : Tensor, shape (n,) or (n, height, width)
        Classes (int64), or whatever else the recipe's loss takes.
    settings
        Optimiser, batch size, epochs.
    lr
        Learning rate of this round, after decay.
    generator
        A CPU generator of this client's own; nothing else is random. What an augmentation draws, or the model's
        dropout, comes from a generator of its own, seeded with this one's seed, so that the order of batches is the
        same without.
    recipe
        Loss and augmentation.

    Raises
    ------
    UserError
        The model draws from PyTorch's global generator, and it cannot be seen from its layers.
    """
    with own_draws(model, generator):
        return _train(model, images, labels, settings, lr, generator, recipe)


def _train(
    model: FlatModel,
    images: Tensor,
    labels: Tensor,
    settings: TrainConfig,
    lr: float,
    generator: torch.Generator,
    recipe: Recipe,
) -> LocalResult:
    if not model.module.training:  # a walk over all layers, which for a small model costs as much as a layer
        model.module.train()
    forward, augmentation = model.forward, recipe.augmentation
    augmenting = augmentation_generator(generator) if augmentation is not None else generator
    optimizer = make_optimizer(model, settings, lr)
    clear = model.drop_grad if isinstance(optimizer, LargeSGD) else model.zero_grad
    num_examples = len(labels)
    losses: list[Tensor] = []
    rows: list[int] = []
    lonely = num_examples % settings.batch_size == 1 or settings.batch_size == 1
    sizes = batch_sizes(num_examples, settings.batch_size, least_batch(model, images) if lonely else 1)
    for _ in range(settings.local_epochs):
        order = torch.randperm(num_examples, generator=generator).to(labels.device)
        for batch in torch.split(order, sizes):
            clear()
            # index_select copies whole rows where images[batch] would look at every row's index in turn.
            inputs, targets = images.index_select(0, batch), labels.index_select(0, batch)
            if augmentation is not None:
                inputs, targets = augmentation.apply(
                    inputs, targets, augmentation.draw(len(batch), augmenting)
                )
            loss = recipe.loss(forward(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.detach())
            rows.append(len(batch))
    # Read once, at the end: on an accelerator every look at a number waits for it.
    total = sum(loss * n for loss, n in zip(torch.stack(losses).tolist(), rows, strict=True))
    return LocalResult(num_examples, total / (num_examples * settings.local_epochs))


def augmentation_generator(generator: torch.Generator) -> torch.Generator:
    """Return the generator that augmentation draws from, beside the one that orders the batches."""
    return torch_generator(generator.initial_seed(), "augmentation")
