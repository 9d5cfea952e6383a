"""A last batch of one example, which BatchNorm over single values cannot be trained on."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedunlearn.config import TrainConfig
from fedunlearn.errors import UserError
from fedunlearn.models.flat import FlatModel
from fedunlearn.training import train_local
from fedunlearn.training.batch_sizes import batch_sizes, least_batch, num_batches
from fedunlearn.unlearning import Conditions, Examples, method, methods

IMAGES = torch.randn(9, 2, 4, 4, generator=torch.Generator().manual_seed(2))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])
SETTINGS = TrainConfig(rounds=1, lr=0.1, batch_size=4, local_epochs=2)


def model(*layers: nn.Module) -> FlatModel:
    return FlatModel(nn.Sequential(*layers))


def flat_norm() -> FlatModel:
    torch.manual_seed(0)
    return model(nn.Flatten(), nn.Linear(32, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def pooled_norm() -> FlatModel:
    torch.manual_seed(0)
    return model(
        nn.Conv2d(2, 4, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3)
    )


def wide_norm() -> FlatModel:
    torch.manual_seed(0)
    return model(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


# -- the rule -------------------------------------------------------------------------------------------------


@given(st.integers(2, 60), st.integers(2, 20), st.sampled_from([1, 2]))
def test_all_examples_are_in_batches_as_long_as_asked_for_but_for_the_last(num_examples, size, least):
    sizes = batch_sizes(num_examples, size, least)
    assert sum(sizes) == num_examples
    assert len(sizes) == num_batches(num_examples, size, least)
    assert min(sizes) >= least
    assert set(sizes[:-1]) <= {size}
    assert sizes[-1] < size + least
    plain = [len(part) for part in torch.split(torch.arange(num_examples), size)]
    assert (sizes == plain) == (least <= plain[-1]), "nothing is joined that need not be"


def test_no_examples_no_batches():
    assert batch_sizes(0, 4, 2) == []


@pytest.mark.parametrize(("num_examples", "size"), [(1, 4), (5, 1), (1, 1)])
def test_where_every_batch_would_be_too_small_it_says_so(num_examples, size):
    with pytest.raises(UserError, match=rf"^no batch of {num_examples} example.* in batches of {size} has 2"):
        batch_sizes(num_examples, size, 2)
    assert batch_sizes(num_examples, size) == [1] * num_examples


@pytest.mark.parametrize(
    ("build", "least"), [(flat_norm, 2), (pooled_norm, 2), (wide_norm, 1)], ids=["flat", "pooled", "wide"]
)
def test_torch_agrees_on_which_models_cannot_be_trained_on_one_example(build, least):
    built = build()
    weights, buffers = built.vector.clone(), built.buffers()
    assert least_batch(built, IMAGES) == least
    assert built.module.training, "it is only looked at"
    assert torch.equal(built.vector, weights)
    assert all(torch.equal(buffers[name], buffer) for name, buffer in built.buffers().items())
    if least == 1:
        built.module(IMAGES[:1])
    else:
        with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
            built.module(IMAGES[:1])
        built.module(IMAGES[:2])


def test_a_norm_without_running_statistics_is_looked_at_too():
    assert least_batch(model(nn.Flatten(), nn.BatchNorm1d(32, track_running_stats=False)), IMAGES) == 2


# -- whoever trains -------------------------------------------------------------------------------------------


def by_hand(built: FlatModel, sizes: list[int]) -> torch.Tensor:
    """SGD over batches of these sizes, by torch alone."""
    module, draws = built.copy().module.train(), generator()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(SETTINGS.local_epochs):
        for rows in torch.split(torch.randperm(len(LABELS), generator=draws), sizes):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(IMAGES[rows]), LABELS[rows]).backward()
            optimizer.step()
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


@pytest.mark.parametrize(
    ("build", "sizes"), [(flat_norm, [4, 5]), (pooled_norm, [4, 5]), (wide_norm, [4, 4, 1])],
    ids=["flat", "pooled", "wide"],
)  # fmt: skip
def test_training_and_unlearning_cut_the_same_batches(build, sizes):
    """Nine examples in batches of four."""
    expected = by_hand(build(), sizes)
    trained = build()
    train_local(trained, IMAGES, LABELS, SETTINGS, lr=0.1, generator=generator())
    torch.testing.assert_close(trained.vector, expected)
    told = []
    routine = method("fine-tune")
    tuned = routine(
        build(),
        Examples(IMAGES[:1], LABELS[:1]),
        Examples(IMAGES, LABELS),
        settings=routine.settings(epochs=2, batch_size=4, lr=0.1, momentum=0.0, weight_decay=0.0),
        generator=generator(),
        conditions=Conditions(progress=told.append),
    )
    torch.testing.assert_close(tuned.vector, expected)
    assert [(report.step, report.steps) for report in told][-1] == (2 * len(sizes), 2 * len(sizes))


SOME_SETTINGS = {"epochs": 1, "batch_size": 4, "forget_batch_size": 4}


@pytest.mark.parametrize("name", list(methods()))
def test_every_method_does_with_a_last_batch_of_one(name):
    """Five examples to forget, nine to keep, in batches of four."""
    routine = method(name)
    fields = routine.settings.__dataclass_fields__
    settings = routine.settings(**{key: value for key, value in SOME_SETTINGS.items() if key in fields})
    forget = Examples(IMAGES[:5], torch.full((5,), 2))
    retain = Examples(IMAGES, LABELS % 2)
    told = []
    found = routine(
        flat_norm(), forget, retain, settings=settings, generator=generator(),
        conditions=Conditions(progress=told.append),
    )  # fmt: skip
    assert torch.isfinite(found.vector).all()
    assert all(report.steps == len(told) for report in told), "as many steps as were announced"


def test_one_example_alone_is_refused_by_training_and_by_unlearning():
    one = Examples(IMAGES[:1], LABELS[:1])
    with pytest.raises(UserError, match=r"^no batch of 1 example in batches of 4 has 2 examples"):
        train_local(flat_norm(), *one, SETTINGS, lr=0.1, generator=generator())
    with pytest.raises(UserError, match=r"^no batch of 9 examples in batches of 1 has 2 examples"):
        train_local(
            flat_norm(), IMAGES, LABELS, replace(SETTINGS, batch_size=1), lr=0.1, generator=generator()
        )
    with pytest.raises(UserError, match=r"^no batch of 1 example in batches of \d+ has 2 examples"):
        method("gradient-ascent")(flat_norm(), one, Examples(IMAGES, LABELS), generator=generator())
