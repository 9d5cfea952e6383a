"""Projected ascent: every step within three balls, and what is left of it where there are none."""

import numpy as np
import pytest
import torch
from torch import nn

from fedunlearn.errors import UserError
from fedunlearn.models.flat import FlatModel
from fedunlearn.unlearning import Conditions, method
from fedunlearn.unlearning.gradient_ascent import GradientAscent
from fedunlearn.unlearning.projected_ascent import ProjectedAscent, projected
from tests.oracles import pga as oracle
from tests.unlearning import tiny

ASCENT = method("projected-ascent")
SEED = 3


def linear(scale=1.0):
    """Return softmax regression, whose gradient can be written out."""
    torch.manual_seed(0)
    model = FlatModel(
        nn.Sequential(nn.Flatten(), nn.Linear(tiny.FEATURES, tiny.CLASSES)).double(), dtype=torch.float64
    )
    model.load(scale * model.vector)
    return model


def climbed(model, settings, last=None, seen=None):
    """Run it on ten examples, and note the weights after every step."""
    tensors = {} if last is None else {"last": last}
    conditions = Conditions(
        tensors=tensors, progress=lambda report: seen.append(report) if seen is not None else None
    )
    return ASCENT(
        model,
        tiny.examples(10, 1),
        tiny.examples(3, 2),
        settings=settings,
        generator=tiny.generator(SEED),
        conditions=conditions,
    )


def by_hand(model, settings, last, tau):
    examples = tiny.examples(10, 1)
    x, y = examples.images.flatten(1).numpy(), examples.labels.numpy()
    return oracle.climbed(
        model.vector.numpy(),
        last.numpy(),
        x,
        y,
        tiny.CLASSES,
        lr=settings.lr,
        momentum=settings.momentum,
        clip=settings.clip,
        size=settings.batch_size,
        epochs=settings.epochs,
        radius=settings.radius or np.inf,
        tau=tau,
        seed=SEED,
    )


def other(model, away=0.5):
    """Return weights that float32 holds exactly, at some distance."""
    step = torch.linspace(-1, 1, len(model.vector), dtype=torch.float64)
    return (model.vector + away * step / step.norm()).float()


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, 12),
        ({"radius": 0.3}, 12),
        ({"clip": 0.1}, 12),
        ({"clip": 0.05, "radius": 0.02}, 12),
        ({"stop": 1.2}, None),
        ({"stop_at": 0.7, "stop": 100.0}, None),
        ({"stop": 1.2, "radius": 0.02}, 12),
    ],
)
def test_it_is_the_oracle_s(changes, steps):
    model, told = linear(), []
    last = other(model)
    chosen = {"epochs": 4, "batch_size": 4, "lr": 0.2, "stop": 100.0, **changes}
    settings = ProjectedAscent(**chosen)
    tau = settings.stop_at or settings.stop * float((model.vector - last.double()).norm())
    path = by_hand(model, settings, last.double(), tau)
    found = climbed(model, settings, last, told)
    torch.testing.assert_close(found.vector, torch.from_numpy(path[-1]), rtol=0, atol=1e-12)
    assert len(told) == len(path)
    assert len(path) == steps if steps else 0 < len(path) < 12, "the case is what it says"


def test_no_epochs_return_the_given_model():
    model = linear()
    assert torch.equal(climbed(model, ProjectedAscent(epochs=0), other(model)).vector, model.vector)


@pytest.mark.parametrize("epochs", range(1, 8))
def test_after_every_step_it_is_within_the_ball(epochs):
    """Seven times one step more; in the end it stands on the sphere."""
    model = linear()
    found = climbed(model, ProjectedAscent(epochs=epochs, batch_size=10, lr=0.5, radius=0.4))
    away = float((found.vector - model.vector).norm())
    assert away <= 0.4 + 1e-12
    assert away == pytest.approx(0.4) or epochs < 3


def test_without_balls_it_is_gradient_ascent():
    model = linear(0.1)
    ascent = method("gradient-ascent")
    plain = GradientAscent(epochs=2, batch_size=4, lr=0.05, weight_decay=0)
    given = {"generator": tiny.generator(SEED), "settings": plain}
    expected = ascent(model, tiny.examples(10, 1), tiny.examples(3, 2), **given)
    free = ProjectedAscent(epochs=2, batch_size=4, lr=0.05, clip=1e9)
    torch.testing.assert_close(climbed(model, free).vector, expected.vector, rtol=0, atol=1e-12)


def test_where_it_begins_outside_of_the_last_ball_one_step_is_made():
    model, told = linear(), []
    climbed(model, ProjectedAscent(epochs=3, batch_size=4, lr=1e-4, stop_at=0.1), other(model, 0.5), told)
    assert len(told) == 1


def test_the_loss_of_f_goes_up():
    model, told = linear(), []
    climbed(model, ProjectedAscent(epochs=5, batch_size=10, lr=0.1), seen=told)
    losses = [-report.loss for report in told]
    assert losses == sorted(losses) and losses[-1] > losses[0] + 0.1


def test_last_weights_of_another_length_are_refused():
    with pytest.raises(UserError, match=r"tensor 'last' of shape \(3,\)"):
        climbed(linear(), ProjectedAscent(), torch.zeros(3))


def test_a_point_within_a_ball_stays_and_one_outside_comes_to_its_sphere():
    centre = torch.tensor([1.0, 0.0])
    inside, outside = centre + torch.tensor([0.75, 1.0]), centre + torch.tensor([3.0, 4.0])
    assert projected(inside, centre, 1.25) is inside
    assert torch.equal(projected(outside, centre, 1.25), inside)
    assert projected(outside, centre, 0.0) is outside
