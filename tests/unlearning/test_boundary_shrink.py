"""Boundary shrink: F learns the nearest wrong labels, those of the original model a short step away."""

import pytest
import torch

from fedunlearn.unlearning import Conditions, boundary_shrink, method
from fedunlearn.unlearning.boundary_shrink import BoundaryShrink, fast_gradient_sign, nearest_labels
from fedunlearn.unlearning.steps import frozen
from tests.oracles import unlearning as oracle
from tests.oracles import unlearning_teachers as teachers
from tests.unlearning import tiny

FORGET = tiny.examples(9, 1)
EMPTY = FORGET.select(torch.arange(0))


def run(model, settings, **conditions):
    given = {"settings": settings, "generator": tiny.generator(3), "conditions": Conditions(**conditions)}
    return method("boundary-shrink")(model, FORGET, EMPTY, **given)


@pytest.mark.parametrize("exclude", [False, True])
def test_two_epochs_are_those_of_the_oracle(exclude):
    settings = BoundaryShrink(
        epsilon=0.3, epochs=2, batch_size=4, lr=0.1, weight_decay=0.01, exclude_true_label=exclude
    )
    model = tiny.flat()
    module, original = tiny.plain_copy(model), tiny.plain_copy(model)
    pairs = zip(FORGET.images, FORGET.labels.tolist(), strict=True)
    wrong = torch.tensor([teachers.nearest_wrong_label(original, x, y, 0.3, exclude) for x, y in pairs])
    passes = oracle.orders(9, 4, 2, seed=3)
    teachers.learn(module, [(FORGET.images[r], wrong[r]) for batches in passes for r in batches], settings)
    torch.testing.assert_close(run(model, settings).vector, tiny.weights(module), rtol=0, atol=1e-12)


def labels_after(step, exclude):
    teacher = frozen(tiny.flat())
    return nearest_labels(teacher, *FORGET, torch.full((1, 1, 1), step).double(), exclude=exclude), teacher


@pytest.mark.parametrize("step", [0.0, 0.1, 1.0])
def test_the_true_label_is_never_learned_unless_asked_for(step):
    assert (labels_after(step, exclude=True)[0] != FORGET.labels).all()


def test_without_a_step_the_code_s_habit_is_the_models_own_answer():
    labels, teacher = labels_after(0.0, exclude=False)
    assert torch.equal(labels, teacher.module(FORGET.images).argmax(1))


def test_where_the_step_crosses_the_boundary_both_habits_agree():
    (strict, _), (loose, _) = labels_after(1.0, exclude=True), labels_after(1.0, exclude=False)
    crossed = loose != FORGET.labels
    assert crossed.any() and torch.equal(strict[crossed], loose[crossed])


def test_the_step_is_as_long_as_said_in_every_pixel_and_raises_the_loss():
    teacher, step = frozen(tiny.flat()), torch.full((1, 1, 1), 0.01).double()
    moved = fast_gradient_sign(teacher, *FORGET, step)
    torch.testing.assert_close((moved - FORGET.images).abs(), torch.full_like(moved, 0.01))
    losses = [
        torch.nn.functional.cross_entropy(teacher.module(x), FORGET.labels, reduction="none")
        for x in (FORGET.images, moved)
    ]
    assert (losses[1] > losses[0]).all()


def test_asking_leaves_no_gradient_in_the_teacher():
    teacher = frozen(tiny.flat())
    fast_gradient_sign(teacher, *FORGET, torch.ones(1, 1, 1).double())
    assert not teacher.gradient.any()


def test_the_original_model_is_asked_in_evaluation_mode_to_the_end(monkeypatch):
    asked = []

    def nearest_labels(teacher, *rest, **options):
        asked.append((teacher.vector.clone(), teacher.module.training, teacher.buffers()["2.running_mean"]))
        return original(teacher, *rest, **options)

    original = boundary_shrink.nearest_labels
    monkeypatch.setattr(boundary_shrink, "nearest_labels", nearest_labels)
    model = tiny.flat(norm=True)
    found = run(model, BoundaryShrink(epochs=2, batch_size=3, lr=0.1))
    assert len(asked) == 6 and not torch.equal(found.vector, model.vector)
    for vector, training, mean in asked:
        assert torch.equal(vector, model.vector) and not training
        assert torch.equal(mean, model.buffers()["2.running_mean"])


def test_epsilon_is_in_pixels_where_their_scale_is_known():
    model = tiny.flat()
    scaled = run(model, BoundaryShrink(epsilon=0.1, lr=0.1), pixel_std=(0.25,))
    plain = run(model, BoundaryShrink(epsilon=0.4, lr=0.1))
    assert torch.equal(scaled.vector, plain.vector)
