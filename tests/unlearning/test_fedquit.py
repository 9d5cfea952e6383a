"""FedQUIT: the global model teaches F, with the true class made the least likely."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.unlearning import method
from fedunlearn.unlearning.distillation import divergence
from fedunlearn.unlearning.fedquit import FedQuit, virtual_logits
from tests.oracles import unlearning as oracle
from tests.oracles import unlearning_teachers as teachers
from tests.unlearning import tiny

FORGET = tiny.examples(9, 1)
EMPTY = FORGET.select(torch.arange(0))


def run(model, settings, forget=FORGET):
    return method("fedquit")(model, forget, EMPTY, settings=settings, generator=tiny.generator(3))


def test_two_epochs_are_those_of_the_oracle():
    settings = FedQuit(epochs=2, batch_size=4, lr=0.01)
    model = tiny.flat()
    module = tiny.plain_copy(model)
    with torch.no_grad():
        logits = module(FORGET.images).tolist()
    for row, label in zip(logits, FORGET.labels.tolist(), strict=True):
        row[label] = min(row)
    targets = teachers.softmax(torch.tensor(logits, dtype=torch.float64))
    passes = oracle.orders(9, 4, 2, seed=3)
    batches = [(FORGET.images[r], targets[r]) for rows in passes for r in rows]
    teachers.distil(module, batches, settings.lr)
    torch.testing.assert_close(run(model, settings).vector, tiny.weights(module), rtol=0, atol=1e-12)


numbers = st.lists(st.floats(-50, 50), min_size=3, max_size=3)


@given(st.lists(numbers, min_size=1, max_size=4), st.integers(0, 2))
def test_the_target_sums_to_one_and_its_true_class_has_the_smallest_probability(rows, label):
    logits = torch.tensor(rows, dtype=torch.float64)
    labels = torch.full((len(rows),), label)
    target = virtual_logits(logits, labels).softmax(1)
    torch.testing.assert_close(target.sum(1), torch.ones(len(rows), dtype=torch.float64))
    assert torch.equal(target[:, label], target.min(1).values)


def test_the_other_classes_keep_their_proportions_and_the_given_logits_stay():
    logits = torch.tensor([[3.0, 1.0, -2.0, 0.5]])
    before = logits.clone()
    found = virtual_logits(logits, torch.tensor([0]))
    assert torch.equal(logits, before)
    assert found.tolist() == [[-2.0, 1.0, -2.0, 0.5]]


def test_where_the_true_class_is_the_least_likely_already_nothing_is_learned():
    model = tiny.flat()
    least = FORGET._replace(labels=model.module(FORGET.images).argmin(1))
    losses = [divergence(virtual_logits(z, least.labels), z) for z in [model.module(FORGET.images)]]
    assert float(losses[0].detach()) == 0


def test_the_student_comes_near_the_virtual_teacher():
    model = tiny.flat()
    found = run(model, FedQuit(epochs=300, lr=0.02))
    target = virtual_logits(model.module(FORGET.images), FORGET.labels)
    after, before = (float(divergence(m.module(FORGET.images), target).detach()) for m in (found, model))
    assert after < 0.1 * before
    assert after == pytest.approx(0, abs=0.05)
